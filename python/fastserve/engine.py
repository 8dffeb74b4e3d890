"""`fastserve.Engine`: the engine inside a Python program, with the same queue, batcher and backends as the server."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fastserve import _core, plugins
from fastserve import errors as _errors
from fastserve.embedding.backends import (
    BackendLoad,
    BackendModel,
    Batch,
    Execute,
    Tensor,
    check_not_executing,
    maker,
    tensor_specs,
    tensors,
)
from fastserve.embedding.futures import Completer, InferFuture
from fastserve.embedding.iterators import iterate, iterate_async
from fastserve.embedding.loop_port import LoopPort
from fastserve.embedding.owners import Owners
from fastserve.embedding.types import Array, Inputs, Outputs, SupportsDLPack, Wanted
from fastserve.label_text import weights_of
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
from fastserve.worker.words import REASON_PARAMETER

__all__ = [
    "Array",
    "BackendLoad",
    "BackendModel",
    "Batch",
    "Engine",
    "InferFuture",
    "Inputs",
    "Model",
    "Outputs",
    "SupportsDLPack",
    "Tensor",
    "Wanted",
]

Progress = Callable[[float, str], None]

_core.set_error_factory(_errors.from_code)


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


def _model(status: _core.VersionStatus) -> Model:
    return Model(
        name=status.model,
        version=status.version,
        state=status.state,
        reason=status.reason,
        backend=status.backend,
        inputs=tensors(status.inputs),
        outputs=tensors(status.outputs),
        max_batch_rows=status.max_batch_rows,
        instances=status.instance_count,
        properties=dict(status.properties),
    )


class Engine:
    """Loads models and answers `infer` from any thread; a context manager.

    It opens no socket, starts no event loop, installs no signal handler, configures no logging and reads no environment
    variable. Several may live in one process. `close` (or the end of the `with` block, or the collector) answers everything
    that was admitted and frees the models; at the end of the interpreter what waits is cancelled. After `close` and in a forked
    child every call raises (Unavailable, FailedPrecondition). How it behaves in programs: python/fastserve/EMBEDDING.md.
    """

    def __init__(
        self,
        *,
        max_queue_requests: int = 0,
        rate_limit: RateLimit | None = None,
        response_cache_bytes: int = 0,
        allow_python_models: bool = False,
    ) -> None:
        """`max_queue_requests`: waiting requests per model beyond which new ones are refused (0 = 1024, or
        as many as are served within 1 s). `rate_limit`:
        instances run when they get their resources, by priority; None: at once. `response_cache_bytes`: answers that are kept
        for models with response_cache, of all models together; 0: none. `allow_python_models`: model.py files run, in worker
        processes (a model is code; backends of register_backend need no leave)."""
        given: dict[str, Any] = {"default_max_queue_requests": max_queue_requests}
        if rate_limit is not None:
            given["rate_resources"] = rate_limit.core_resources()
        if response_cache_bytes:
            given["response_cache_bytes"] = response_cache_bytes
        self.core = _core.Engine(**given)
        plugins.register(self.core, allow_python_models=allow_python_models)
        self._infer = self.core.infer
        self.owners = Owners(self.core)
        self._token = object()
        self._lock = threading.Lock()
        self._completer: Completer | None = None
        self._ports: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPort] = (
            weakref.WeakKeyDictionary()
        )
        self._last_port: LoopPort | None = None
        weakref.finalize(self, _collected, self.owners).atexit = False  # the owners see to that

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

        `backend` is chosen by the file's name when empty; an ONNX model with operations that OpenVINO lacks goes to ONNX
        Runtime then (Model.backend, Model.properties["chosen_because"]). `max_batch_rows`: None = as the model allows, 0 = no
        batching.
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

        def load(by: str, told: Mapping[str, str]) -> None:
            spec = _core.LoadSpec(
                model,
                version,
                backend=by,
                path=os.fspath(path),
                max_batch_rows=rows,
                inputs=tensor_specs(inputs),
                outputs=tensor_specs(outputs),
                instance_count=instances if isinstance(instances, int) else 0,
                parameters=dict(told),
                **core_arguments(scheduling, rows),
            )
            self.core.load(spec, progress)

        usual = backend or plugins.backend_for(Path(path) if path else None)
        try:
            load(usual, parameters or {})
        except (_errors.InvalidArgument, _errors.Unimplemented) as refused:
            second = "" if backend else plugins.second_choice(usual, os.fspath(path), refused.message)
            if not second:
                raise
            reason = f"OpenVINO cannot run it: {refused.message}"
            try:
                load(second, {REASON_PARAMETER: reason})  # the parameters were the usual one's
            except _errors.FastserveError as error:
                raise type(refused)(f"{refused.message}; {second}: {error.message}") from None
        return self.model(model, version)

    def unload(self, model: str, version: int | None = None, *, drain_seconds: float | None = None) -> None:
        """Stops serving a version (all of the model's when None): admitted requests are answered, then it is freed."""
        check_not_executing(self._token, "unload")
        versions = [m.version for m in self.models() if m.name == model] if version is None else [version]
        if not versions:
            raise _errors.NotFound(f"Request for unknown model: '{model}' is not found")
        for number in versions:
            self.core.unload(model, number, drain_seconds)

    def set_labels(self, model: str, labels: Mapping[str, int | Mapping[int, float]]) -> None:
        """Replaces all labels of a model at once: {"stable": 3, "canary": {3: 95, 4: 5}}; `infer(..., version="canary")` then
        goes to version 3 or 4 in that proportion. "default" is also for requests that name no version. Versions need not be
        loaded: a label stands for those that are ready, and a request by one that stands for none raises FailedPrecondition.
        Requests with the same parameter `routing_key` stay on one version. Raises InvalidArgument, ResourceExhausted."""
        weights = {label: {v: 1} if isinstance(v, int) else v for label, v in labels.items()}
        self.core.set_labels(model, {label: weights_of(label, given) for label, given in weights.items()})

    def labels(self, model: str) -> dict[str, dict[int, int]]:
        """{label: {version: weight}}."""
        found: dict[str, dict[int, int]] = {}
        for status in self.core.labels():
            if status.model == model:
                found.setdefault(status.label, {})[status.version] = status.weight
        return found

    def models(self) -> list[Model]:
        """Every version the engine knows, failed ones with their reason."""
        return [_model(status) for status in self.core.status()]

    def model(self, name: str, version: int | str | None = None) -> Model:
        """The version that a request would get now (the highest ready one when None); `version`: a number or a label."""
        return _model(self.core.resolve(name, "" if version is None else str(version)))

    def register_backend(
        self,
        name: str,
        code: Execute | type[BackendModel],
        *,
        inputs: Sequence[Tensor] = (),
        outputs: Sequence[Tensor] = (),
        max_batch_rows: int = 0,
    ) -> None:
        """Makes Python code a backend of this engine: `load(model, backend=name)` serves it like any other.

        `code`: a function `execute(batch) -> {output: array}`, or a class of which each instance of a model gets an object
        (BackendModel). `inputs`, `outputs` and `max_batch_rows` are what a model has when `load` does not say; those of the
        arrays must match. Exceptions of fastserve.errors keep their code, others become Internal with their type and text.
        """
        if not name:
            raise _errors.InvalidArgument('name: got "", want the name of a backend')
        self.core.add_python_backend(
            name, tensor_specs(inputs), tensor_specs(outputs), max_batch_rows, maker(self._token, code)
        )

    def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | str | None = None,
        outputs: Wanted = (),
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> Outputs:
        """Runs one request and returns {output name: array}; blocks without the interpreter lock, so threads run beside it.

        `inputs`: {input name: numpy array, or any tensor with __dlpack__} of the model's dtypes and shapes, rows first where it
        batches; contiguous ones are read in place and must not change until the call returns. `outputs`: those wanted, all when
        empty; or {name: array} to write them to. `timeout` in seconds: DeadlineExceeded when it passes. Raises InvalidArgument,
        NotFound, Unavailable (queue full, draining).
        """
        return self._infer(model, inputs, version, outputs, request_id, priority, timeout)

    def submit(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | str | None = None,
        outputs: Wanted = (),
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> InferFuture:
        """`infer` that returns at once, from any thread; what is refused at once is raised here. The future's `cancel` takes the
        request out of the queue. `inputs` must not change until it is done."""
        completer = self._completer
        if completer is None:
            completer = self._new_completer()
        return completer.submit(model, inputs, version, outputs, request_id, priority, timeout)

    async def infer_async(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | str | None = None,
        outputs: Wanted = (),
        timeout: float | None = None,
        priority: int = 0,
        request_id: str = "",
    ) -> Outputs:
        """`infer` for the running asyncio loop. Calls made in one pass of the loop wake the engine once, and results that
        are ready together wake the loop once. Cancelling the task cancels the request."""
        loop = asyncio.get_running_loop()
        port = self._last_port
        if port is None or port.loop() is not loop:
            port = self._port(loop)
        future, number = port.submit(loop, model, inputs, version, outputs, request_id, priority, timeout)
        try:
            return await future
        except asyncio.CancelledError:
            port.cancel(number, future)
            raise

    def map(
        self,
        model: str,
        inputs: Iterable[Inputs],
        *,
        in_flight: int = 32,
        version: int | str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        priority: int = 0,
    ) -> Generator[Outputs, None, None]:
        """The answers to many requests, in their order, with at most `in_flight` of them out. `inputs` is walked as far ahead as
        that. An error is raised at its place and ends the iterator; closing it early cancels what is out."""
        _check_in_flight(in_flight)
        return iterate(
            self.core,
            self.owners,
            inputs,
            in_flight,
            lambda one: (model, one, version, outputs, "", priority, timeout),
        )

    def map_async(
        self,
        model: str,
        inputs: Iterable[Inputs] | AsyncIterable[Inputs],
        *,
        in_flight: int = 32,
        version: int | str | None = None,
        outputs: Sequence[str] = (),
        timeout: float | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[Outputs, None]:
        """`map` for the running asyncio loop: `async for`. Close it (contextlib.aclosing) where it is not walked to its end."""
        _check_in_flight(in_flight)
        return iterate_async(
            lambda one: self.infer_async(
                model, one, version=version, outputs=outputs, timeout=timeout, priority=priority
            ),
            inputs,
            in_flight,
        )

    def close(self) -> None:
        """Answers what was admitted and frees every model. Safe to call twice."""
        check_not_executing(self._token, "close")
        self.owners.close()

    def _port(self, loop: asyncio.AbstractEventLoop) -> LoopPort:
        with self._lock:
            port = self._ports.get(loop)
            if port is None:
                port = self._ports[loop] = LoopPort(self.core, loop)
                self.owners.add(port)
            self._last_port = port
        return port

    def _new_completer(self) -> Completer:
        with self._lock:
            if self._completer is None:
                self._completer = Completer(self.core)
                self.owners.add(self._completer)
            return self._completer


def _check_in_flight(in_flight: int) -> None:
    if in_flight < 1:
        raise _errors.InvalidArgument(f"in_flight: got {in_flight}, want 1 or more")


def _collected(owners: Owners) -> None:
    """The engine itself is gone: nobody can call it any more, but answers may still be on their way."""
    if not owners.closed:
        warnings.warn("an Engine was dropped without close()", ResourceWarning, stacklevel=2)
        owners.close()
