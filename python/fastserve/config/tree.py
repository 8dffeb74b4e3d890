"""The tree itself: frozen dataclasses, one a section. The other spellings of a field come from its path:

    server.http_port   key of the file, and the flag --server.http_port
    --http-port        plain flag, where `Option.flag` gives one
    FASTSERVE_SERVER_HTTP_PORT

Standard library only, because `fastserve serve --help` is made from it; resolve.py has pydantic check values.
"""

from __future__ import annotations

import typing
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

ENV_PREFIX = "FASTSERVE_"


@dataclass(frozen=True)
class About:
    """What the tree says about a field beside its type and default."""

    description: str
    flag: str = ""  # plain spelling; "" = only --section.field
    low: float | None = None  # bounds, inclusive
    high: float | None = None
    is_bytes: bool = False  # takes "64MiB" too
    not_yet: tuple[str, ...] = ()  # legal values that a later version will know
    separator: str = ","  # of a list of texts in an environment variable


Port = int


@dataclass(frozen=True)
class Server:
    host: Annotated[str, About("address that every listener binds to", "--host")] = "127.0.0.1"
    http_port: Annotated[Port, About("port of REST; 0 picks a free one", "--http-port", 0, 65535)] = 8000
    grpc_port: Annotated[Port, About("port of gRPC; 0 picks a free one", "--grpc-port", 0, 65535)] = 8001
    metrics_port: Annotated[
        Port, About("port of /metrics for Prometheus; 0 picks a free one", "--metrics-port", 0, 65535)
    ] = 8002
    metrics_host: Annotated[
        str | None, About("address of the metrics listener; unset: that of the others", "--metrics-host")
    ] = None
    http_unix_socket: Annotated[
        str | None, About("Unix socket for REST as well: a path, or unix:/path", "--http-unix-socket")
    ] = None
    grpc_unix_socket: Annotated[
        str | None, About("Unix socket for gRPC as well: a path, or unix:/path", "--grpc-unix-socket")
    ] = None
    local: Annotated[
        str | None,
        About(
            "Unix socket of the local transport (tensors in shared memory, fastserve.client.local): a path, or unix:/path; "
            "unset: off",
            "--local",
        ),
    ] = None
    local_uids: Annotated[
        tuple[str, ...],
        About(
            "numbers of users that may connect to --local beside the server's own and root (the file's mode has to let them "
            "in too)",
            "--local-uid",
        ),
    ] = ()
    io_threads: Annotated[
        int,
        About(
            "native threads that own the gRPC and REST sockets, free of the interpreter lock; 0: the uvloop loop owns them",
            "--io-threads",
            0,
            256,
        ),
    ] = 1
    allow_client_shm: Annotated[
        bool,
        About(
            "clients may register POSIX shared memory (any object of /dev/shm that the server may write to) and name it in "
            "requests, over gRPC and REST",
            "--allow-client-shm",
        ),
    ] = False
    grpc_reflection: Annotated[
        bool,
        About(
            "answer gRPC server reflection (v1 and v1alpha): anybody may ask for every service's descriptor",
            "--grpc-reflection",
        ),
    ] = False
    ready_file: Annotated[
        Path | None,
        About("written (JSON with the addresses) when the server is ready, removed at exit", "--ready-file"),
    ] = None


@dataclass(frozen=True)
class Tls:
    cert: Annotated[
        Path | None,
        About(
            "PEM file with the server's certificate and its chain: turns TLS on; read again when it changes, and on SIGHUP",
            "--tls-cert",
        ),
    ] = None
    key: Annotated[Path | None, About("PEM file with the private key", "--tls-key")] = None
    client_ca: Annotated[
        Path | None,
        About(
            "PEM file with authorities: clients must show a certificate of one of them (mTLS)",
            "--tls-client-ca",
        ),
    ] = None
    min_version: Annotated[
        Literal["1.2", "1.3"], About("oldest version of TLS that is spoken", "--tls-min-version")
    ] = "1.2"
    ports: Annotated[
        Literal["both", "grpc", "http"],
        About("which ports speak TLS; metrics and Unix sockets never do", "--tls-ports"),
    ] = "both"
    handshake_timeout_s: Annotated[
        float,
        About("seconds that a client has for the handshake", "--tls-handshake-timeout", 0.1, 3600),
    ] = 10.0


@dataclass(frozen=True)
class Repository:
    model_repository: Annotated[
        tuple[Path | str, ...],
        About(
            "folder of models in Triton's layout, or s3://bucket/folder, gs://, az://, http(s)://; may be given several times",
            "--model-repository",
        ),
    ] = ()
    model_control_mode: Annotated[
        Literal["none", "poll", "explicit"],
        About(
            "none: load everything at start; poll: look for changes every --repository-poll-secs as well; explicit: clients load "
            "and unload models",
            "--model-control-mode",
        ),
    ] = "none"
    poll_s: Annotated[
        float, About("seconds between two looks of mode poll", "--repository-poll-secs", 0.1, 86400)
    ] = 15.0
    models_file: Annotated[
        Path | None,
        About("YAML file that lists repositories and models, with versions and labels", "--models-file"),
    ] = None
    model_config_file: Annotated[
        Path | None,
        About("TensorFlow Serving's model_config_list (text proto)", "--model-config-file"),
    ] = None
    model_config_file_poll_s: Annotated[
        float,
        About(
            "seconds after which files that list models are read again; 0: only in mode poll, and on reload",
            "--model-config-file-poll-wait-seconds",
            0,
            86400,
        ),
    ] = 0.0
    model_name: Annotated[
        str | None, About("serve one model under this name, as TensorFlow Serving does", "--model-name")
    ] = None
    model_base_path: Annotated[str | None, About("the folder with its versions", "--model-base-path")] = None
    ovms_config_file: Annotated[
        Path | None, About("OpenVINO Model Server's config.json", "--ovms-config-file")
    ] = None
    load_model: Annotated[
        tuple[str, ...],
        About(
            "explicit mode: a model that is loaded at start, may be given several times; '*' alone: all of them",
            "--load-model",
        ),
    ] = ()
    allow_python_models: Annotated[
        bool,
        About(
            "load models of backend python: such a model is code, and runs with the rights of the server",
            "--allow-python-models",
        ),
    ] = False
    state_file: Annotated[
        Path | None,
        About(
            "file that keeps what clients changed (models loaded and unloaded, labels) for the next start; unset: nothing is "
            "kept",
            "--state-file",
        ),
    ] = None
    require_manifest: Annotated[
        bool,
        About(
            "load only versions whose fastserve-manifest.json or SHA256SUMS names every file (fastserve manifest writes one)",
            "--require-manifest",
        ),
    ] = False
    model_decrypt_hook: Annotated[
        str | None,
        About(
            "what decrypts model.onnx.enc, model.xml.enc and model.bin.enc in memory: MODULE:FUNCTION (bytes -> bytes), "
            "aes-gcm:file=FILE or aes-gcm:env=NAME with the key; unset: such models are refused",
            "--model-decrypt-hook",
        ),
    ] = None
    strict_readiness: Annotated[
        bool,
        About(
            "ready only when every model is; otherwise once the first load has finished", "--strict-readiness"
        ),
    ] = False
    loader_threads: Annotated[
        int, About("versions that load at the same time", "--loader-threads", 1, 64)
    ] = 2
    memory_budget_bytes: Annotated[
        int,
        About(
            "models that together take more are unloaded, least recently used first, and loaded again when they are asked for; "
            "0: no budget",
            "--memory-budget-bytes",
            0,
            1 << 50,
            is_bytes=True,
        ),
    ] = 0
    unload_idle_s: Annotated[
        float,
        About(
            "a model that nobody asked for so long is unloaded until it is asked for; 0: never",
            "--unload-idle-secs",
            0,
            1e9,
        ),
    ] = 0.0
    load_on_demand: Annotated[
        bool,
        About("load models when they are first asked for, not at the start", "--load-on-demand"),
    ] = False
    on_asleep: Annotated[
        Literal["hold", "refuse"],
        About(
            "requests to a model that is not in memory: hold: until it is loaded; refuse: UNAVAILABLE at once, and it is loaded",
            "--on-asleep",
        ),
    ] = "hold"
    version_transition: Annotated[
        Literal["availability", "resource"],
        About(
            "availability: an old version goes when the new one is ready; resource: it goes before the new one is loaded, so "
            "that memory never holds both",
            "--version-transition",
        ),
    ] = "availability"
    load_timeout_s: Annotated[
        float,
        About(
            "seconds that a load may take before it has failed and its result is thrown away; 0: any time",
            "--load-timeout-secs",
            0,
            7 * 86_400,
        ),
    ] = 600.0
    load_retries: Annotated[
        int,
        About(
            "how often a load that failed for a reason that may pass (no memory, no device, too slow) is tried again, after 1, "
            "4, 16 ... at most 300 seconds",
            "--load-retries",
            0,
            1_000_000,
        ),
    ] = 5


@dataclass(frozen=True)
class Remote:
    cache_dir: Annotated[
        Path | None,
        About(
            "folder where remote repositories are kept; unset: fastserve/repositories in the user's cache folder",
            "--repository-cache-dir",
        ),
    ] = None
    cache_bytes: Annotated[
        int,
        About(
            "bytes of that folder beyond which versions that are not in use leave it, least recently used first; 0: no limit",
            "--repository-cache-bytes",
            0,
            1 << 60,
            is_bytes=True,
        ),
    ] = 0
    cache_keep_s: Annotated[
        float,
        About(
            "seconds that a version stays there which the store does not list any more and that is not in use",
            "--repository-cache-keep",
            0,
            31_536_000,
        ),
    ] = 3600.0
    offline_start: Annotated[
        bool,
        About(
            "start with what is in the cache when a store cannot be reached",
            "--repository-offline-start",
        ),
    ] = True
    max_version_files: Annotated[
        int, About("files of a version that is downloaded", "--repository-max-version-files", 1, 1 << 20)
    ] = 10_000
    max_version_bytes: Annotated[
        int,
        About(
            "bytes of a version that is downloaded",
            "--repository-max-version-bytes",
            1,
            1 << 60,
            is_bytes=True,
        ),
    ] = 1 << 40
    request_timeout_s: Annotated[
        float, About("seconds that a store has for one answer", "--repository-request-timeout", 0.1, 3600)
    ] = 60.0
    parallel: Annotated[int, About("requests for data at the same time", "--repository-parallel", 1, 256)] = 8


@dataclass(frozen=True)
class Limits:
    max_message_bytes: Annotated[
        int,
        About(
            "largest request: REST body, gRPC message",
            "--max-message-bytes",
            1024,
            (1 << 31) - 1,
            is_bytes=True,
        ),
    ] = 64 << 20
    max_streams: Annotated[
        int, About("concurrent streams of one gRPC connection", "--max-streams", 1, 1 << 20)
    ] = 1024
    max_stream_requests: Annotated[
        int,
        About(
            "requests in work of one ModelStreamInfer; more wait at the client",
            "--max-stream-requests",
            1,
            1 << 20,
        ),
    ] = 256
    compress_grpc_answers: Annotated[
        bool,
        About(
            "compress gRPC answers for every client that reads gzip or deflate, not only for those that send it",
            "--compress-grpc-answers",
        ),
    ] = False
    max_queue_requests: Annotated[
        int,
        About(
            "waiting requests of a model beyond which new ones are refused (config.pbtxt may say otherwise); 0: 1024, or as many "
            "as the model serves in 1 s",
            "--max-queue-requests",
            0,
            1 << 30,
        ),
    ] = 0
    load_files: Annotated[
        int, About("files that a load by request may bring along", "--load-files", 1, 1 << 16)
    ] = 256
    load_file_bytes: Annotated[
        int,
        About(
            "bytes of the files that loads by request brought along, of all models together; they are kept in memory",
            "--load-file-bytes",
            0,
            1 << 50,
            is_bytes=True,
        ),
    ] = 1 << 30
    client_shm_regions: Annotated[
        int,
        About(
            "regions of --allow-client-shm that are registered or still in use",
            "--client-shm-regions",
            1,
            1 << 15,
        ),
    ] = 1024
    client_shm_bytes: Annotated[
        int,
        About("bytes of all these regions together", "--client-shm-bytes", 1, 1 << 50, is_bytes=True),
    ] = 16 << 30
    client_pinned_bytes: Annotated[
        int,
        About(
            "bytes of clients' regions (--allow-client-shm, --local) that are page-locked while a GPU is in use; beyond it they "
            "work, and their copies to the GPU are staged. 0: none",
            "--client-pinned-bytes",
            0,
            1 << 50,
            is_bytes=True,
        ),
    ] = 4 << 30
    pinned_memory_pool_byte_size: Annotated[
        int,
        About(
            "page-locked memory for the batches of models on GPUs; beyond it batches use pageable memory, whose copies to the "
            "GPU are synchronous. 0: none",
            "--pinned-memory-pool-byte-size",
            0,
            1 << 50,
            is_bytes=True,
        ),
    ] = 512 << 20
    gpu_memory_fraction: Annotated[
        float,
        About(
            "part of each GPU's memory that models may take; a load beyond it is refused. 5 % stay in reserve anyway",
            "--gpu-memory-fraction",
            0,
            1,
        ),
    ] = 1.0
    gpu_loss_exit_s: Annotated[
        float,
        About(
            "when a GPU is lost (its driver needs a new process), the server is not ready at once and ends with code 70 after so "
            "many seconds; -1: it stays, not ready",
            "--gpu-loss-exit-s",
            -1,
            3600,
        ),
    ] = 2.0
    exit_timeout_s: Annotated[
        float,
        About("seconds that requests in flight have to finish after SIGTERM", "--exit-timeout", 0, 86400),
    ] = 30.0


@dataclass(frozen=True)
class Scheduling:
    target_p99_ms: Annotated[
        float,
        About(
            "milliseconds that 99 of 100 requests shall take, for models that do not say it; 0: none",
            "--target-p99-ms",
            0,
            3_600_000,
        ),
    ] = 0.0
    rate_limit: Annotated[
        Literal["off", "execution_count"],
        About(
            "execution_count: instances run when they get their resources (rate_limiter), by priority; off: at once",
            "--rate-limit",
        ),
    ] = "off"
    rate_limit_resource: Annotated[
        tuple[str, ...],
        About(
            "how many there are of a resource of the rate limiter: NAME:COUNT; may be given several times; "
            "unset: as many as the neediest instance wants",
            "--rate-limit-resource",
        ),
    ] = ()
    host_policy: Annotated[
        tuple[str, ...],
        About(
            "CPUs of instances: NAME,cpu-cores=0-3 or NAME,numa-node=0; may be given several times; "
            "'cpu' is the policy of instance groups that name none",
            "--host-policy",
            separator=";",
        ),
    ] = ()
    response_cache_bytes: Annotated[
        int,
        About(
            "answers that are kept for models with response_cache, of all models together; 0: none",
            "--response-cache-bytes",
            0,
            1 << 50,
            is_bytes=True,
        ),
    ] = 0
    cache_config: Annotated[
        tuple[str, ...],
        About(
            "the same as Triton writes it: local,size=BYTES; no other cache is known",
            "--cache-config",
            separator=";",
        ),
    ] = ()
    batching_parameters_file: Annotated[
        Path | None,
        About(
            "TensorFlow Serving's batching parameters (text proto), for what models do not say themselves",
            "--batching-parameters-file",
        ),
    ] = None


@dataclass(frozen=True)
class Logging:
    format: Annotated[
        Literal["auto", "human", "json"],
        About("auto: human on a terminal, JSON lines otherwise", "--log-format"),
    ] = "auto"
    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        About("least important level that is logged", "--log-level"),
    ] = "info"
    access_log: Annotated[bool, About("one log line per request", "--access-log")] = False


@dataclass(frozen=True)
class Tracing:
    file: Annotated[
        Path | None,
        About(
            "JSON file for traces of requests; clients switch tracing on and off, but name no file",
            "--trace-file",
        ),
    ] = None
    level: Annotated[
        Literal["OFF", "TIMESTAMPS", "TENSORS"],
        About("what is traced", "--trace-level", not_yet=("TENSORS",)),
    ] = "OFF"
    rate: Annotated[int, About("one request of so many is traced", "--trace-rate", 1, (1 << 31) - 1)] = 1000
    count: Annotated[
        int, About("traces until tracing stops by itself; -1: no end", "--trace-count", -1, (1 << 31) - 1)
    ] = -1
    log_frequency: Annotated[
        int,
        About(
            "0: all traces in one file; n: a file FILE.0, FILE.1, ... for every n traces",
            "--trace-log-frequency",
            0,
            10_000,
        ),
    ] = 0
    max_bytes: Annotated[
        int,
        About(
            "bytes of trace files that a server writes; traces beyond them are dropped",
            "--trace-max-bytes",
            1024,
            1 << 50,
            is_bytes=True,
        ),
    ] = 256 << 20


@dataclass(frozen=True)
class Cpu:
    threads: Annotated[
        int,
        About(
            "threads that the models of this process share; 0: as many as the affinity and the cgroup's quota allow",
            "--cpu-threads",
            0,
            4096,
        ),
    ] = 0
    tune: Annotated[
        Literal["off", "load"],
        About(
            "load: measure how many streams serve a model best when it is loaded and nothing else runs; off: one stream",
            "--tune",
        ),
    ] = "load"
    tune_cache: Annotated[
        str,
        About(
            "folder where the measurements are kept; auto: fastserve/tune in the user's cache folder; none: nowhere",
            "--tune-cache",
        ),
    ] = "auto"


@dataclass(frozen=True)
class OpenVino:
    cache_dir: Annotated[
        Path | None, About("folder where compiled models are kept between starts", "--openvino-cache-dir")
    ] = None


@dataclass(frozen=True)
class TensorRT:
    plan_cache: Annotated[
        str,
        About(
            "folder where plans built from ONNX files are kept; auto: fastserve/plans in the user's cache folder; none: nowhere",
            "--tensorrt-plan-cache",
        ),
    ] = "auto"
    plan_cache_bytes: Annotated[
        int,
        About(
            "plans beyond this size go, those first that were not used for longest",
            "--tensorrt-plan-cache-byte-size",
            0,
            1 << 60,
            is_bytes=True,
        ),
    ] = 10 << 30


@dataclass(frozen=True)
class Config:
    server: Annotated[Server, About("listeners")] = field(default_factory=Server)
    tls: Annotated[Tls, About("TLS on the gRPC and REST ports")] = field(default_factory=Tls)
    repository: Annotated[Repository, About("what is served")] = field(default_factory=Repository)
    remote: Annotated[Remote, About("remote repositories")] = field(default_factory=Remote)
    limits: Annotated[Limits, About("what a client may ask for")] = field(default_factory=Limits)
    scheduling: Annotated[Scheduling, About("how requests wait, for all models")] = field(
        default_factory=Scheduling
    )
    logging: Annotated[Logging, About("what is written to stderr")] = field(default_factory=Logging)
    tracing: Annotated[Tracing, About("traces of single requests")] = field(default_factory=Tracing)
    cpu: Annotated[Cpu, About("the CPU as a device")] = field(default_factory=Cpu)
    openvino: Annotated[OpenVino, About("the OpenVINO backend")] = field(default_factory=OpenVino)
    tensorrt: Annotated[TensorRT, About("the TensorRT backend")] = field(default_factory=TensorRT)


@dataclass(frozen=True)
class Option:
    """One field of the tree, with everything that is derived from its path."""

    section: str
    name: str
    type: Any  # without the Annotated around it
    default: Any
    about: About

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        return f"{ENV_PREFIX}{self.section}_{self.name}".upper()

    @property
    def flags(self) -> tuple[str, ...]:
        return (*([self.about.flag] if self.about.flag else []), f"--{self.path}")

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.type) is tuple

    @property
    def is_flag(self) -> bool:
        return self.type is bool

    @property
    def choices(self) -> tuple[str, ...]:
        return typing.get_args(self.type) if typing.get_origin(self.type) is Literal else ()

    @property
    def expected(self) -> str:
        """What a value has to be, for error messages and help."""
        if self.choices:
            return "one of " + ", ".join(c for c in self.choices if c not in self.about.not_yet)
        base = next(t for t in (typing.get_args(self.type) or (self.type,)) if t is not type(None))
        base = Path if base == Path | str else base
        words = {int: "an integer", float: "a number", bool: "true or false", str: "a text", Path: "a path"}[
            base
        ]
        if self.is_list:
            words += f" or a list of {words.removeprefix('a ')}s"
        if self.about.is_bytes:
            words = "a number of bytes (64MiB, 1GB, 1048576)"
        if self.about.low is not None and self.about.high is not None:
            words += f" from {_number(self.about.low)} to {_number(self.about.high)}"
        return words


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


@cache
def sections() -> dict[str, type]:
    """Section name -> its dataclass, in the order of the tree."""
    hints = typing.get_type_hints(Config)
    return {f.name: hints[f.name] for f in fields(Config)}


@cache
def options() -> dict[str, Option]:
    """Every field of the tree by its path."""
    found = {}
    for section, cls in sections().items():
        hints = typing.get_type_hints(cls, include_extras=True)
        for item in fields(cls):
            base, about = typing.get_args(hints[item.name])
            assert item.default is not MISSING
            option = Option(section, item.name, base, item.default, about)
            found[option.path] = option
    return found
