"""The C++ engine (csrc/bind, pybind11). Internal: programs use `fastserve.Engine`.

Every call that can fail raises what the factory given to `set_error_factory` makes of (code, message); `fastserve.errors`
installs it. Codes are gRPC's numbers. Calls that block release the interpreter lock.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

import numpy.typing as npt

version: str  # of the extension; equals the package's

def set_error_factory(factory: Callable[[int, str], Exception] | None) -> None: ...
def set_log_sink(sink: Callable[[int, str], None] | None) -> None:
    """`sink(level, message)`, level as in `logging`; called from any thread with the interpreter lock held."""

def limit_cpu_threads(threads: int) -> None:
    """For the process, before its first model: 0 = all that the affinity and the cgroup's quota allow."""

def cpu_threads() -> int: ...
def limit_malloc_arenas(most: int) -> None:
    """For the process, threads that allocate later (mallopt's M_ARENA_MAX)."""

def set_tuning(*, at_load: bool, cache_directory: str) -> None:
    """For the process, loads that begin later. `cache_directory` "": nothing is kept."""

class CudaDevice(TypedDict):
    """A GPU that this process sees."""

    ordinal: int
    name: str
    uuid: str  # "GPU-..." or "MIG-..."
    compute_capability: str  # "9.0"
    memory_bytes: int
    pci: str  # "0000:3B:00.0"
    numa_node: int | None  # None: the system does not say

def cuda_devices() -> tuple[list[CudaDevice], str]:
    """The GPUs, or none of them and why. The first call starts the driver (cuInit), which may take a second."""

def limit_pinned_memory(*, pool_bytes: int = 1 << 29, client_bytes: int = 1 << 32) -> None:
    """For the process, before its first model on a GPU: page-locked memory of batches, and of clients' regions; 0 = none."""

def pinned_memory() -> PinnedMemory: ...
def limit_gpu_memory(fraction: float) -> None:
    """For the process: part of each GPU's memory that models may take; 5 % stay in reserve anyway."""

def gpu_memory() -> list[GpuMemory]:
    """Of the GPUs that came up in this process, by ordinal."""

has_gpu_lane: bool  # of the build; the machine may have no GPU all the same

class GpuFault(TypedDict):
    """A GPU that this process has lost; its models answer UNAVAILABLE until the process is started again."""

    device: int  # the driver's ordinal
    uuid: str
    reason: str
    batch: str  # what ran when it was seen
    at_ns: int  # time.monotonic_ns()

def gpu_faults() -> list[GpuFault]: ...

class GpuLaneCounts(TypedDict):
    """Of all models on a GPU since the process started (csrc/backend/cuda_counts.h)."""

    device: int
    uuid: str
    lost: bool
    graph_batches: int
    fallback_batches: int
    failed_batches: int
    in_place_copies: int
    unpinned_copies: int

def gpu_lane_counts() -> list[GpuLaneCounts]: ...
def install_sigbus_guard() -> None:
    """For the process: shared memory that a client cuts off is then read as zeros, and its region is broken; without it the
    process ends. Other SIGBUS go to the handler that was there before."""

class TensorSpec:
    name: str
    datatype: str  # OIP name: "FP32", "BYTES"
    shape: list[int]  # with the batch dimension (-1) in front when the model batches
    optional: bool
    def __init__(self, name: str, datatype: str, shape: Sequence[int], optional: bool = False) -> None: ...

class WorkerReport:
    """One instance of a model that runs in a process of its own (csrc/backend/worker_supervisor.h)."""

    model: str
    version: int
    instance: str
    state: str  # STARTING UP WAITING STOPPING ENDED
    pid: int  # -1: there is none now
    restarts: int
    serves: bool  # it takes batches: it is up, or its first restart is under way
    last_death: str  # why the last process ended; "" = none did

class QueuePolicy:
    """csrc/batch/scheduling.h; times in microseconds, 0 = none."""

    on_timeout: str  # "reject" or "delay"
    timeout_us: int
    request_may_lower: bool
    max_requests: int  # 0: only the model's limit
    def __init__(
        self,
        *,
        on_timeout: str = "reject",
        timeout_us: int = 0,
        request_may_lower: bool = True,
        max_requests: int = 0,
    ) -> None: ...

class QueueLimits:
    priority_levels: int  # 0: not said
    default_priority: int  # 0: the middle one
    default_policy: QueuePolicy
    by_priority: dict[int, QueuePolicy]
    preserve_ordering: bool
    def __init__(
        self,
        *,
        priority_levels: int = 0,
        default_priority: int = 0,
        default_policy: QueuePolicy = ...,
        by_priority: Mapping[int, QueuePolicy] = ...,
        preserve_ordering: bool = False,
    ) -> None: ...

class ResourceNeed:
    name: str
    count: int
    is_global: bool
    def __init__(self, name: str, *, count: int = 1, is_global: bool = False) -> None: ...

class InstanceGroup:
    name: str
    count: int
    cpus: list[int]  # empty: anywhere
    resources: list[ResourceNeed]
    rate_priority: int
    gpu: str  # kind GPU: ordinal or UUID of one device; "": the backend decides
    def __init__(
        self,
        *,
        name: str = "",
        count: int = 1,
        cpus: Sequence[int] = (),
        resources: Sequence[ResourceNeed] = (),
        rate_priority: int = 0,
        gpu: str = "",
    ) -> None: ...

class WarmUpInput:
    """One row of one input of a warm-up (csrc/bind/warm_up.cc)."""

    name: str
    datatype: str
    shape: list[int]  # without the batch dimension when the model batches
    fill: str  # "zero", "random" or "data"
    data: bytes  # of "data": wire bytes
    def __init__(
        self, name: str, datatype: str, shape: Sequence[int], *, fill: str = "zero", data: bytes = b""
    ) -> None: ...

class WarmUpSample:
    name: str
    rows: int  # 0: the model does not batch
    count: int  # runs on every instance
    inputs: list[WarmUpInput]
    def __init__(
        self, *, name: str = "", rows: int = 1, count: int = 1, inputs: Sequence[WarmUpInput] = ()
    ) -> None: ...

class LoadSpec:
    """csrc/backend/backend.h: what the control layer decided about a version before it is loaded."""

    def hold(self, model: bytes | bytearray | memoryview, weights: bytes | bytearray | memoryview) -> None:
        """The model itself, instead of what lies at `path`: copies both. Good for one load."""

    model: str
    version: int
    backend: str
    path: str
    max_batch_rows: int  # -1: the backend decides from the model; 0: no batching
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    instance_count: int  # 0: the backend's default; the sum of `groups`, where there are any
    max_queue_delay_us: int
    max_queue_requests: int  # 0: the engine's default
    preferred_rows: list[int]
    parameters: dict[str, str]
    labels: dict[str, list[str]]  # output -> names of its classes
    target_p99_us: int  # 0: none
    queue: QueueLimits
    groups: list[InstanceGroup]
    allowed_rows: list[int]
    max_request_rows: int  # 0: a request larger than a batch is refused
    warm_up: list[WarmUpSample]
    response_cache: bool
    def __init__(
        self,
        model: str,
        version: int = 1,
        *,
        backend: str = "",
        path: str = "",
        max_batch_rows: int = -1,
        inputs: Sequence[TensorSpec] = (),
        outputs: Sequence[TensorSpec] = (),
        instance_count: int = 0,
        max_queue_delay_us: int = 0,
        max_queue_requests: int = 0,
        preferred_rows: Sequence[int] = (),
        parameters: Mapping[str, str] = ...,
        labels: Mapping[str, Sequence[str]] = ...,
        target_p99_us: int = 0,
        queue: QueueLimits = ...,
        groups: Sequence[InstanceGroup] = (),
        allowed_rows: Sequence[int] = (),
        max_request_rows: int = 0,
        warm_up: Sequence[WarmUpSample] = (),
        response_cache: bool = False,
    ) -> None: ...

def version_transitions() -> list[tuple[str, str]]:
    """Every step from one state to another that a version may take."""

class ParkingTotals:
    requests: int  # that wait now
    bytes: int
    parked: int  # ever
    refused: int  # ever

class VersionStatus:
    memory_bytes: int  # what the process grew by while it was loaded; 0: unknown
    model: str
    version: int
    state: str  # NEW LOADING WARMING READY DRAINING UNLOADED FAILED
    reason: str
    progress: float
    load_seconds: float  # 0.0 until READY
    backend: str
    platform: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    max_batch_rows: int
    instance_count: int
    buckets: list[int]
    properties: dict[str, str]

class StageTotal:
    count: int
    ns: int

class BatchSizeTotal:
    rows: int
    compute_input: StageTotal
    compute_infer: StageTotal
    compute_output: StageTotal

class Histogram:
    upper_bounds: list[float]  # seconds or rows, ascending, without +Inf
    counts: list[int]  # one more than bounds; not cumulative
    sum: float

class VersionStatistics:
    inference_count: int
    execution_count: int
    last_inference_ms: int
    success: StageTotal
    fail: StageTotal  # all that is neither of the next two
    cancel: StageTotal
    rejected: StageTotal  # queue full, too late, queue timeout
    cache_hit: StageTotal  # of requests to a model that is cached; `success` and `queue` have them too
    cache_miss: StageTotal
    other: StageTotal  # the part of `fail` that is not the backend's: deadline, unloading
    requests_rejected: dict[str, int]  # queue_full, too_late, queue_timeout, cancelled, deadline, unloading
    queue: StageTotal
    compute_input: StageTotal
    compute_infer: StageTotal
    compute_output: StageTotal
    batches: list[BatchSizeTotal]
    pending: int
    in_flight: int
    stage_seconds: dict[str, Histogram]  # queue, gather, execute, encode, total
    batch_rows: Histogram  # sizes of executed batches; bounds are rows
    copied_bytes: int  # of tensors, into batches and out of them
    expired_executed: int  # requests handed to the device after their deadline: 0

class SizeCost(TypedDict):
    """What an instance learned of batches of one size."""

    rows: int
    mean_ns: int
    high_ns: int  # about the 95th percentile
    samples: int

class InstanceScheduling(TypedDict):
    name: str
    busy: bool
    in_flight: int  # batches now
    depth: int  # batches that it takes before one must have finished
    costs: list[SizeCost]  # ascending by rows; sizes with samples only

class LevelScheduling(TypedDict):
    priority: int  # 1 = first
    waiting: int
    waiting_rows: int
    max_requests: int  # 0: only the model's limit
    timeout_ns: int  # 0: none
    request_may_lower: bool  # a request's own `timeout` counts, when it is the shorter one
    on_timeout: str  # "reject" or "delay"

class LabelStatus:
    """One version of a label."""

    model: str
    label: str
    version: int
    weight: int
    ready: bool
    requests: int  # by this label, for this version, since it was first given to it

class ResponseCacheTotals(TypedDict):
    capacity_bytes: int
    bytes: int
    entries: int
    evictions: int  # for want of room
    too_large: int  # answers that were not kept, because they are larger than the cache

class SharedMemoryTotals(TypedDict):
    allowed: bool
    registered: int
    broken: int  # of the registered: their owner truncated them
    regions: int  # mapped: registered, or unregistered and still used by requests
    bytes: int  # of these
    refused: int  # registrations, for whatever reason
    on_device: int  # of the registered: memory of a GPU

class PinnedMemory(TypedDict):
    active: bool  # a GPU is in use
    budget: int  # bytes of page-locked memory for batches
    slab_bytes: int  # page-locked now
    used_bytes: int  # of these
    pageable_bytes: int  # given out beside it, because there was no more
    over_budget: int  # pieces that became pageable for want of budget, ever
    refused: int  # ... because the driver or the system refused
    client_budget: int  # bytes of clients' shared memory that may be page-locked
    client_ranges: int  # that are
    client_bytes: int  # of these
    client_refused: int  # that could not be, ever

class GpuHolding(TypedDict):
    owner: str  # "model 'm' version 3"
    weights: int
    activations: int
    buffers: int
    graphs: int
    loading: bool  # still a forecast

class GpuMemory(TypedDict):
    device: int  # the driver's ordinal
    name: str
    uuid: str
    total: int
    free: int  # as the driver says now
    budget: int
    held: int
    refused: int  # loads, ever
    holdings: list[GpuHolding]

class Scheduling(TypedDict):
    model: str
    version: int
    target_p99_ns: int  # 0: none
    budget_ns: int  # expected to take longer, and no deadline of its own: refused; 0: never
    max_rows: int
    max_queue_delay_ns: int
    max_queue_requests: int
    max_queue_age_ns: int  # more may wait while they are expected to be served within this; 0: none
    preferred_rows: list[int]
    prepared_rows: list[int]
    pads: bool  # a batch runs as the next prepared size
    priority_levels: int  # that a request may name: 1 (first) to this
    default_priority: int  # of a request that names none, or one beyond the levels
    preserve_ordering: bool
    overtaking_batches: int  # so many in a row may leave the longest-waiting request behind
    waiting: int  # requests in the queue now
    arrivals_per_s: float  # rows; the estimate of now
    drain_rows_per_s: float  # what all instances together are expected to do with a long queue; 0: unknown
    next_free_ns: int  # until an instance is expected to be free; 0: now
    levels: list[LevelScheduling]  # those with a policy of their own or with somebody waiting
    instances: list[InstanceScheduling]
    decisions: dict[str, int]  # reason -> batches of the last minute
    batches: dict[int, int]  # rows -> batches of the last minute
    waits: int  # decisions of the last minute to wait for company
    refusals: dict[str, int]  # reason -> requests of the last minute
    covered_seconds: float  # how much of the last minute there are decisions of
    batched_requests: int  # in the last minute's batches
    batched_rows: int
    queue_wait_ns: int  # that those requests waited, all together
    expired_executed: int  # requests handed to the device after their deadline, ever: 0

class Engine:
    """Owner of loaded versions. Blocking calls (load, unload, drain, infer) release the interpreter lock."""

    def __init__(
        self,
        *,
        default_max_queue_requests: int = 0,
        loader_nice: int = 10,
        rate_resources: Sequence[tuple[str, int, int]] | None = None,
        response_cache_bytes: int = 0,
    ) -> None:
        """`rate_resources`: what there is of the rate limiter's resources: name, count, device (-1: every one); None: no
        rate limiter."""
    def add_plugin(self, backend: str, shared_object_path: str) -> None: ...
    def use_workers(
        self, refusals: Mapping[str, str], command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Backends whose models run in processes that `command` starts: {name: "" or why none of them is loaded}."""
    def workers(self) -> list[WorkerReport]: ...
    def load(self, spec: LoadSpec, progress: Callable[[float, str], None] | None = None) -> None: ...
    def load_when_idle(self) -> None:
        """Loads and unloads get only the CPU time that nobody else wants; then somebody has to call hurry_loads."""
    @staticmethod
    def hurry_loads(patience_seconds: float) -> None:
        """Loads and unloads of this process that have run for longer no longer wait for idle CPU time."""
    def give_up_load(self, model: str, version: int) -> bool:
        """The load of it that runs now: it runs on, and is destroyed when it ends; it raises DEADLINE_EXCEEDED. False: none
        runs. Does not block."""
    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None: ...
    def drain(self, seconds: float | None = None) -> bool: ...
    def set_labels(self, model: str, labels: Mapping[str, Mapping[int, int]]) -> None:
        """Replaces all labels of a model: {label: {version: weight}}. Raises INVALID_ARGUMENT, RESOURCE_EXHAUSTED."""
    def set_asleep(self, model: str, holds: bool = True, load_s: int = 1) -> None:
        """Wanted and not loaded; requests are held until set_awake, or refused with UNAVAILABLE and how many seconds of `load_s`
        (0 to 65,535) are left."""
    def set_awake(self, model: str, reason: str = "") -> None:
        """Its load ended, well ("") or not: what was held is submitted, and answered where that fails."""
    def take_asked(self) -> list[str]:
        """Sleeping models that were asked for since they sleep."""
    def asked_fd(self) -> int:
        """Readable with the first request to each sleeping model, until take_asked."""
    def parking(self) -> ParkingTotals: ...
    def labels(self) -> list[LabelStatus]:
        """By model, label, version."""
    def close(self) -> None: ...
    def status(self) -> list[VersionStatus]: ...
    def ready(self, model: str, version: str = "") -> bool: ...
    def resolve(self, model: str, version: str = "") -> VersionStatus:
        """Status of the version that a request would get now; raises NOT_FOUND / UNAVAILABLE in the words of the contract."""

    def statistics(self, model: str, version: int) -> VersionStatistics: ...
    def scheduling(self, model: str, version: str = "") -> Scheduling:
        """What the batch policy of a version believes and did (csrc/engine/read_scheduling.h). Raises as `resolve`."""
    def set_trace(self, model: str | None, rate: int, count: int, level: bool) -> None:
        """Traces one of `rate` requests, `count` at most (-1: no limit), when `level`; None: every model without a setting of
        its own. Raises INVALID_ARGUMENT."""

    def clear_trace(self, model: str) -> None:
        """The model follows the setting for all again."""
    def take_traces(self) -> list[dict[str, Any]]:
        """Traces since the last call: id, request_id, model_name, model_version, timestamps: list[tuple[name, ns]] by
        CLOCK_MONOTONIC, with Triton's names, in order of time."""

    def response_cache(self) -> ResponseCacheTotals:
        """Of the cache that all models share; all 0 when there is none (`response_cache_bytes` 0)."""
    def allow_client_shared_memory(
        self, *, regions: int = 1024, bytes: int = 1 << 34, copied_bytes: int = 1 << 26
    ) -> None:
        """Requests may name registered regions from now on. Limits: regions and their bytes, registered or still used; bytes
        of the BYTES inputs of one request, which are copied."""
    def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """csrc/memory/region_table.h; `key` as for shm_open. Raises ALREADY_EXISTS, INVALID_ARGUMENT, RESOURCE_EXHAUSTED."""
    def register_cuda_region(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        """csrc/backend/cuda_ipc.h; the first call starts the CUDA driver. Raises UNIMPLEMENTED without a GPU, else as above."""
    def unregister_region(self, name: str) -> None:
        """Of either kind. Requests that use it finish with it. Nothing happens when there is none."""
    def unregister_regions(self, on_device: bool = False) -> None:
        """All of one kind."""
    def shared_memory_regions(self) -> list[tuple[str, str, int, int]]:
        """(name, key, offset, bytes) of each in /dev/shm, by name."""
    def cuda_memory_regions(self) -> list[tuple[str, int, int]]:
        """(name, device, bytes) of each on a GPU, by name."""
    def shared_memory(self) -> SharedMemoryTotals: ...
    traces_dropped: int  # because nobody took them (16384 are kept)
    is_used: bool  # also after close: by calls of other threads
    is_forked: bool  # this process was forked from the one that made it
    def shut_down(self) -> None:
        """As close; what waits is answered UNAVAILABLE."""
    def add_python_backend(
        self,
        name: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        max_batch_rows: int,
        make: Callable[..., object],
    ) -> None: ...
    def add_graph_backend(self, name: str, source: object) -> None:
        """`source`: of fastserve.gpu.source, whose `open` is called for each version on each device. FAILED_PRECONDITION
        where this build has no GPU lane (has_gpu_lane); a machine without a GPU says so at the first load."""

    def infer(
        self,
        model: str,
        inputs: object,
        version: int | str | None,
        outputs: object,
        request_id: str,
        priority: int,
        timeout_seconds: float | None,
        /,
    ) -> dict[str, npt.NDArray[Any]]: ...

class Port:
    """Submissions whose results are collected in bursts: watch `fd` or `wait()`, then `take()` or `resolve()`."""

    fd: int  # -1 when closed
    in_flight: int
    def __init__(self, engine: Engine) -> None: ...
    def submit(
        self,
        tag: object,
        model: str,
        inputs: object,
        version: int | str | None,
        outputs: object,
        request_id: str,
        priority: int,
        timeout_seconds: float | None,
        /,
    ) -> int:
        """Raises at once what submit refuses; else `tag` comes back with the result. Call flush() after a burst. Returns the
        number that cancel() wants."""

    def flush(self) -> None: ...
    def cancel(self, number: int, tag: object) -> bool: ...
    def cancel_all(self) -> None:
        """And takes nothing more."""

    def take(self) -> list[tuple[object, dict[str, npt.NDArray[Any]] | None, Exception | None]]: ...
    def resolve(self) -> None:
        """As take; tags are asyncio futures, and get their results here."""

    def wait(self, most_ms: int = -1) -> None:
        """Blocks until there is something to take, wake() or close() was called, or the time passed; handles signals on the main
        thread."""

    def wake(self) -> None: ...
    def close(self) -> None:
        """Waits for what is out and drops it."""

def end_of_interpreter() -> None:
    """At exit, when engines are closed: threads that are still in native code do not come back to Python."""

class LocalStatistics(TypedDict):
    connections: int  # open now
    accepted: int
    connections_refused: int
    connections_broken: int  # ended by us
    regions: int  # mapped now
    region_bytes: int
    open_calls: int
    requests: int
    doorbells: int
    wakes: int
    requests_refused: dict[str, int]  # by name of the status code
    control_refused: dict[str, int]  # the same, of control messages

class LocalServer:
    """The local transport's front end (csrc/frontend/local_server.h), a thread of its own. Keeps the engine alive until
    close()."""

    def __init__(
        self,
        engine: Engine,
        *,
        max_connections: int = 256,
        max_cells: int = 1024,
        max_regions: int = 64,
        max_region_bytes: int = 1 << 30,
        max_total_region_bytes: int = 1 << 32,
        max_models: int = 256,
        max_string_bytes: int = 1 << 26,
        handshake_timeout_s: float = 5.0,
        uids: Sequence[int] = (),
    ) -> None: ...
    def listen(self, fd: int) -> None:
        """A listening SOCK_SEQPACKET socket, duplicated."""
    def stop_listening(self) -> None: ...
    def adopt(self, fd: int) -> None:
        """A connected SOCK_SEQPACKET socket of a trusted peer, duplicated."""
    def close(self) -> None:
        """Ends all connections, waits for the requests that run."""
    def statistics(self) -> LocalStatistics: ...

class LocalModel:
    """What a version accepts, as the server said when it was opened."""

    number: int  # the same for the same version and signature
    name: str
    version: int
    max_batch_rows: int
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    def plan(self, rows: int) -> tuple[list[tuple[int, Sequence[int], int]], list[tuple[int, int]]]:
        """(index, shape, bytes) of inputs, (index, room) of outputs. INVALID_ARGUMENT: more than the rows is open."""
    def make_slot(
        self, inputs: Sequence[tuple[int, Sequence[int], int]], outputs: Sequence[tuple[int, int]]
    ) -> LocalSlot: ...

class LocalSlot:
    """A request's place in shared memory; arrays on it keep it."""

    in_flight: bool
    parameters: dict[str, bool | int | float | str]  # of the last answer
    def input_memory(self, input: int) -> npt.NDArray[Any]:
        """All its bytes, uint8."""
    def reshape(self, input: int, shape: Sequence[int], bytes: int) -> None: ...
    def output(self, output: int) -> tuple[str, tuple[int, ...], npt.NDArray[Any]]:
        """(datatype, shape, bytes as uint8) of the last answer."""
    def raise_if_failed(self) -> None: ...
    def set_id(self, id: str) -> None: ...
    def set_priority(self, priority: int) -> None: ...
    def set_timeout_us(self, us: int) -> None: ...
    def set_queue_timeout_us(self, us: int) -> None: ...
    def set_parameters(self, parameters: dict[str, bool | int | float | str]) -> None:
        """Instead of those before. INVALID_ARGUMENT names the one that cannot be sent."""

class LocalConnection:
    """The client of the local transport (csrc/client/local_connection.h). One thread at a time: FAILED_PRECONDITION otherwise."""

    descriptor: int
    gone: bool
    in_flight: int
    @staticmethod
    def connect(
        path: str, *, cells: int = 128, cell_bytes: int = 1024, timeout_s: float = 5.0
    ) -> LocalConnection: ...
    @staticmethod
    def over(fd: int, *, cells: int = 128, cell_bytes: int = 1024, timeout_s: float = 5.0) -> LocalConnection:
        """A connected SOCK_SEQPACKET socket, duplicated."""
    def open(self, name: str, version: str = "") -> LocalModel: ...
    def submit(self, slot: LocalSlot) -> None: ...
    def flush(self) -> None: ...
    def cancel(self, slot: LocalSlot) -> None: ...
    def next(self) -> LocalSlot | None:
        """That was answered; None: no other was."""
    def wait(self, seconds: float) -> None:
        """Without the interpreter lock; handles signals. DEADLINE_EXCEEDED, UNAVAILABLE."""
    def arm(self) -> bool:
        """True: poll the descriptor for reading, then call woken(). False: there are answers."""
    def woken(self) -> None: ...
    def close(self) -> None: ...
