"""`fastserve.Engine`: the engine inside a Python program, with the same queue, batcher and backends as the server."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastserve import _core, plugins
from fastserve import errors as _errors
from fastserve.scheduling import (
    Instances,
    Priorities,
    Queue,
    RateLimit,
    Scheduling,
    WarmUp,
    core_arguments,
    faults,
)

Array = npt.NDArray[Any]
Progress = Callable[[float, str], None]

_core.set_error_factory(_errors.from_code)


@dataclass(frozen=True)
class Tensor:
    """Name, OIP datatype ("FP32") and shape (-1 = any; the batch dimension in front where the model batches)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Model:
    """What one loaded version is and accepts."""

    name: str
    version: int
    state: str
    reason: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_rows: int
    instances: int
    properties: dict[str, str]


def _tensors(specs: Sequence[_core.TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(Tensor(s.name, s.datatype, tuple(s.shape), s.optional) for s in specs)


def _model(status: _core.VersionStatus) -> Model:
    return Model(
        name=status.model,
        version=status.version,
        state=status.state,
        reason=status.reason,
        backend=status.backend,
        inputs=_tensors(status.inputs),
        outputs=_tensors(status.outputs),
        max_batch_rows=status.max_batch_rows,
        instances=status.instance_count,
        properties=dict(status.properties),
    )


class Engine:
    """Loads models and answers `infer` from any thread; a context manager.

    It opens no socket, starts no event loop, installs no signal handler, configures no logging and reads no environment
    variable. Several may live in one process. `close` (or the end of the `with` block) answers everything that was admitted
    and frees the models.
    """

    def __init__(
        self,
        *,
        max_queue_requests: int = 0,
        rate_limit: RateLimit | None = None,
        response_cache_bytes: int = 0,
    ) -> None:
        """`max_queue_requests`: waiting requests per model beyond which new ones are refused (0 = 1024). `rate_limit`:
        instances run when they get their resources, by priority; None: at once. `response_cache_bytes`: answers that are kept
        for models with response_cache, of all models together; 0: none."""
        given: dict[str, Any] = {"default_max_queue_requests": max_queue_requests}
        if rate_limit is not None:
            given["rate_resources"] = rate_limit.core_resources()
        if response_cache_bytes:
            given["response_cache_bytes"] = response_cache_bytes
        self.core = _core.Engine(**given)
        plugins.register(self.core)
        self._ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopPort] = (
            weakref.WeakKeyDictionary()
        )
        self._ports_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def load(
        self,
        model: str,
        path: str | os.PathLike[str] = "",
        *,
        version: int = 1,
        backend: str = "",
        max_batch_rows: int | None = None,
        inputs: Sequence[Tensor] = (),
        outputs: Sequence[Tensor] = (),
        instances: int | Sequence[Instances] = 0,
        max_queue_delay_us: int = 0,
        max_queue_requests: int = 0,
        target_p99_ms: float = 0.0,
        preferred_batch_sizes: Sequence[int] = (),
        allowed_batch_sizes: Sequence[int] = (),
        max_request_rows: int = 0,
        preserve_order: bool = False,
        queue: Queue | None = None,
        priorities: Priorities | None = None,
        response_cache: bool = False,
        warm_up: Sequence[WarmUp] = (),
        parameters: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Model:
        """Loads one version (a model file, or a directory that holds one), warms it up and serves it; blocks until then.

        `backend` is chosen by the file's name when empty. `max_batch_rows`: None = as the model allows, 0 = no batching.
        What schedules requests is in fastserve.scheduling, with the names that model.yaml has; `max_queue_requests` is
        short for queue=Queue(max_requests=...). A version that is already served is replaced without a gap. Raises
        InvalidArgument, NotFound, Unimplemented.
        """
        if max_queue_requests:
            if queue is not None:
                raise _errors.InvalidArgument("max_queue_requests is given beside queue: want one of them")
            queue = Queue(max_requests=max_queue_requests)
        scheduling = Scheduling(
            target_p99_ms=target_p99_ms,
            max_queue_delay_us=max_queue_delay_us,
            preferred_batch_sizes=tuple(preferred_batch_sizes),
            allowed_batch_sizes=tuple(allowed_batch_sizes),
            max_request_rows=max_request_rows,
            preserve_order=preserve_order,
            queue=queue or Queue(),
            priorities=priorities or Priorities(),
            instances=() if isinstance(instances, int) else tuple(instances),
            response_cache=response_cache,
            warm_up=tuple(warm_up),
        )
        rows = max_batch_rows if max_batch_rows is not None else next(iter(allowed_batch_sizes[-1:]), -1)
        for fault in faults(scheduling, rows):
            raise _errors.InvalidArgument(fault.worded())
        spec = _core.LoadSpec(
            model,
            version,
            backend=backend or plugins.backend_for(Path(path) if path else None),
            path=os.fspath(path),
            max_batch_rows=rows,
            inputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in inputs],
            outputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in outputs],
            instance_count=instances if isinstance(instances, int) else 0,
            parameters=dict(parameters or {}),
            **core_arguments(scheduling, rows),
        )
        self.core.load(spec, progress)
        return self.model(model, version)

    def unload(self, model: str, version: int | None = None, *, drain_seconds: float | None = None) -> None:
        """Stops serving a version (all of the model's when None): admitted requests are answered, then it is freed."""
        versions = [m.version for m in self.models() if m.name == model] if version is None else [version]
        if not versions:
            raise _errors.NotFound(f"Request for unknown model: '{model}' is not found")
        for number in versions:
            self.core.unload(model, number, drain_seconds)

    def models(self) -> list[Model]:
        """Every version the engine knows, failed ones with their reason."""
        return [_model(status) for status in self.core.status()]

    def model(self, name: str, version: int | None = None) -> Model:
        """The version that a request would get now (the highest ready one when None)."""
        return _model(self.core.resolve(name, "" if version is None else str(version)))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> dict[str, Array]:
        """Runs one request and returns {output name: array}; blocks without the interpreter lock, so threads run beside it.

        `inputs`: {input name: array} of the model's dtypes and shapes, rows first where it batches; contiguous arrays are
        read in place and must not change until the call returns. `outputs`: those wanted, all when empty. `timeout` in
        seconds: DeadlineExceeded when it passes. Raises InvalidArgument, NotFound, Unavailable (queue full, draining).
        """
        return self.core.infer(
            model, inputs, "" if version is None else str(version), outputs, request_id, priority, timeout
        )

    async def infer_async(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> dict[str, Array]:
        """`infer` for the running asyncio loop. Calls made in one pass of the loop wake the engine once, and results that
        are ready together wake the loop once."""
        port = self._port(asyncio.get_running_loop())
        return await port.infer(
            model, inputs, "" if version is None else str(version), outputs, request_id, priority, timeout
        )

    def close(self) -> None:
        """Answers what was admitted and frees every model. Safe to call twice."""
        with self._ports_lock:
            ports, self._ports = list(self._ports.values()), weakref.WeakKeyDictionary()
        for port in ports:
            port.close()
        self.core.close()

    def _port(self, loop: asyncio.AbstractEventLoop) -> _LoopPort:
        port = self._ports.get(loop)
        if port is None:
            port = _LoopPort(self.core, loop)
            with self._ports_lock:
                self._ports[loop] = port
        return port


class _LoopPort:
    """The submissions of one asyncio loop. Everything but close runs on the loop's thread."""

    def __init__(self, core: _core.Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._port = _core.AsyncPort(core)
        self._loop = weakref.ref(loop)
        self._flush_scheduled = False
        loop.add_reader(self._port.fd, self._on_ready)

    def infer(self, *request: Any) -> asyncio.Future[dict[str, Array]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[dict[str, Array]] = loop.create_future()
        self._port.submit(future, *request)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._port.flush()

    def _on_ready(self) -> None:
        for tag, outputs, error in self._port.take():
            future: asyncio.Future[dict[str, np.ndarray[Any, Any]]] = tag  # type: ignore[assignment]
            if future.done():  # its caller gave up
                continue
            if error is not None:
                future.set_exception(error)
            elif outputs is not None:
                future.set_result(outputs)

    def close(self) -> None:
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(self._port.fd)
            self._on_ready()
        self._port.close()
