"""Stand-ins for what the extensions hand to the Python front ends, for tests of the pure parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fastserve.errors import InvalidArgument, NotFound, Unimplemented
from fastserve.frontends.served import Readiness, Served
from fastserve.frontends.tracing import Tracing
from fastserve.lifecycle import ModelControl, ModelState, Repositories, VersionSpec


class FakeGrpcCall:
    """Records what was sent; `finished` is (code, message), set exactly once."""

    def __init__(
        self, path: str, message: bytes = b"", timeout_seconds: float | None = None, **metadata: bytes
    ) -> None:
        self.path, self.message, self.timeout_seconds = path, message, timeout_seconds
        self.takes_messages = False
        self.metadata = list(metadata.items())
        self.peer = "127.0.0.1:6"
        self.cancelled = False
        self.on_cancel: Any = None
        self.sent: list[bytes] = []
        self.finished: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        assert self.finished is None
        self.sent.append(message)

    def reply(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def finish(self, code: int = 0, message: str = "", trailers: Any = ()) -> None:
        assert self.finished is None, "finished twice"
        self.finished = (code, message)

    def cancel(self) -> None:
        """What the session does when the client resets the stream."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()


class FakeHttpCall:
    """Records the response; `status` is set exactly once."""

    def __init__(self, method: str, target: str, body: bytes = b"", headers: Any = ()) -> None:
        self.method, self.target, self.body = method, target, body
        self.headers, self.peer, self.secure = list(headers), "127.0.0.1:5", False
        self.cancelled = False
        self.on_cancel: Any = None
        self.status: int | None = None
        self.response_headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.ended = False
        self.streamed = False

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        self._head(status, headers)
        self.chunks.append(body)
        self.ended = True

    def start(self, status: int, headers: Any) -> None:
        self._head(status, headers)
        self.streamed = True

    def write(self, chunk: bytes) -> None:
        assert self.streamed
        assert not self.ended
        self.chunks.append(chunk)

    def end(self) -> None:
        assert not self.ended, "ended twice"
        self.ended = True

    def _head(self, status: int, headers: Any) -> None:
        assert self.status is None, "answered twice"
        self.status, self.response_headers = status, dict(headers)

    @property
    def response(self) -> bytes:
        return b"".join(self.chunks)


def tensor(name: str, datatype: str, shape: list[int], optional: bool = False) -> Any:
    return SimpleNamespace(name=name, datatype=datatype, shape=shape, optional=optional)


def total(count: int, ns: int) -> Any:
    return SimpleNamespace(count=count, ns=ns)


def version(model: str, number: int, state: str = "READY", **fields: Any) -> Any:
    """A VersionStatus."""
    values: dict[str, Any] = {
        "reason": "",
        "progress": 1.0,
        "load_seconds": 1.5 if state == "READY" else 0.0,
        "backend": "identity",
        "platform": "identity",
        "inputs": [tensor("x", "FP32", [-1, 4])],
        "outputs": [tensor("y", "FP32", [-1, 4])],
        "max_batch_rows": 8,
        "instance_count": 1,
        "buckets": [1, 8],
        "properties": {},
    }
    return SimpleNamespace(model=model, version=number, state=state, **(values | fields))


def statistics() -> Any:
    """A VersionStatistics in which every figure differs."""
    stage = SimpleNamespace(upper_bounds=[0.001, 0.1], counts=[3, 2, 1], sum=0.75)
    return SimpleNamespace(
        inference_count=40,
        execution_count=20,
        last_inference_ms=1_700_000_000_000,
        success=total(10, 1_000_000),
        fail=total(3, 30),
        cancel=total(2, 20),
        rejected=total(1, 10),
        other=total(1, 5),
        requests_rejected={"queue_full": 1, "cancelled": 2, "deadline": 1},
        cache_hit=total(15, 6_000_000),
        cache_miss=total(16, 7_000_000),
        queue=total(11, 2_000_000),
        compute_input=total(12, 3_000_000),
        compute_infer=total(13, 4_000_000),
        compute_output=total(14, 5_000_000),
        batches=[
            SimpleNamespace(
                rows=2, compute_input=total(1, 2), compute_infer=total(3, 4), compute_output=total(5, 6)
            )
        ],
        pending=7,
        in_flight=9,
        copied_bytes=0,
        expired_executed=0,
        stage_seconds={"total": stage},
        batch_rows=SimpleNamespace(upper_bounds=[1.0, 2.0], counts=[4, 6, 0], sum=16.0),
    )


class FakeCore:
    """The reading half of _core.Engine over a list of VersionStatus."""

    def __init__(self, versions: list[Any]) -> None:
        self.versions = versions
        self.traces_dropped = 6
        self.regions: dict[str, tuple[str, str, int, int]] = {}
        self.cuda_regions: dict[str, tuple[str, int, int]] = {}
        self.has_gpu = False
        self.shared_memory_allowed = False
        self.worker_reports: list[Any] = []
        self.given_labels: dict[str, dict[str, dict[int, int]]] = {}
        self.cache = {"capacity_bytes": 1000, "bytes": 900, "entries": 8, "evictions": 7, "too_large": 6}

    def status(self) -> list[Any]:
        return self.versions

    def resolve(self, model: str, wanted: str = "") -> Any:
        ready = [v for v in self.versions if v.model == model and v.state == "READY"]
        if wanted and not wanted.isdigit():
            raise InvalidArgument(f"failed to get model version from specified version string '{wanted}'")
        if wanted:
            ready = [v for v in ready if str(v.version) == wanted]
        if not ready:
            raise NotFound(f"Request for unknown model: '{model}' is not found")
        return max(ready, key=lambda v: v.version)

    def take_traces(self) -> list[dict[str, Any]]:
        return []

    def ready(self, model: str, wanted: str = "") -> bool:
        try:
            return bool(self.resolve(model, wanted))
        except NotFound:
            return False

    def statistics(self, model: str, number: int) -> Any:
        return statistics()

    def workers(self) -> list[Any]:
        return self.worker_reports

    def response_cache(self) -> dict[str, int]:
        return self.cache

    def set_labels(self, model: str, labels: dict[str, dict[int, int]]) -> None:
        self.given_labels[model] = labels

    def labels(self) -> list[Any]:
        return [
            SimpleNamespace(
                model=model, label=label, version=version, weight=weight, ready=version == 3, requests=7
            )
            for model, labels in sorted(self.given_labels.items())
            for label, weights in sorted(labels.items())
            for version, weight in sorted(weights.items())
        ]

    def shared_memory(self) -> dict[str, int]:
        size = sum(region[3] for region in self.regions.values())
        count = len(self.regions)
        return {
            "allowed": self.shared_memory_allowed,
            "registered": count,
            "broken": 1,
            "regions": count,
            "bytes": size,
            "refused": 2,
        }

    def shared_memory_regions(self) -> list[tuple[str, str, int, int]]:
        return list(self.regions.values())

    def register_region(self, name: str, key: str, offset: int, byte_size: int) -> None:
        self.regions[name] = (name, key, offset, byte_size)

    def unregister_region(self, name: str) -> None:
        self.regions.pop(name, None)
        self.cuda_regions.pop(name, None)

    def unregister_regions(self, on_device: bool = False) -> None:
        (self.cuda_regions if on_device else self.regions).clear()

    def cuda_memory_regions(self) -> list[tuple[str, int, int]]:
        return list(self.cuda_regions.values())

    def register_cuda_region(self, name: str, raw_handle: bytes, device_id: int, byte_size: int) -> None:
        if not self.has_gpu:
            raise Unimplemented(
                f"failed to register CUDA shared memory region: '{name}': GPUs are not supported"
            )
        assert raw_handle == b"handle"
        self.cuda_regions[name] = (name, device_id, byte_size)


class FakeReconciler:
    """The reading half of Reconciler: what the engine has, and `unreadable`, which never got there."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    def model_states(self) -> list[ModelState]:
        states = [ModelState(v.model, v.version, v.state, v.reason) for v in self._core.versions]
        states.append(ModelState("unreadable", None, "FAILED", "config.pbtxt:3: unknown field 'inptu'"))
        return sorted(states, key=lambda s: (s.model, s.version or 0))

    def spec(self, model: str, number: int) -> VersionSpec:
        return VersionSpec(model, number, "identity", f"/models/{model}/{number}")


@pytest.fixture
def grpc_call() -> type[FakeGrpcCall]:
    return FakeGrpcCall


@pytest.fixture
def http_call() -> type[FakeHttpCall]:
    return FakeHttpCall


@pytest.fixture
def make_version() -> Any:
    return version


@pytest.fixture
def make_tensor() -> Any:
    return tensor


@pytest.fixture
def core() -> FakeCore:
    """`plain` with versions 1 and 3 ready and 4 loading, `broken` failed."""
    return FakeCore(
        [
            version("plain", 3),
            version("plain", 1),
            version("plain", 4, "LOADING"),
            version("broken", 1, "FAILED", reason="not an ONNX file"),
        ]
    )


@pytest.fixture
async def served(core: FakeCore) -> Served:
    reconciler: Any = FakeReconciler(core)
    ready = Readiness()
    ready.set(True)
    engine: Any = core
    control = ModelControl(reconciler, Repositories(), explicit=False)
    return Served(engine, reconciler, control, Tracing(engine), "1.2.3", ready)
