"""Engine.register_backend: models that are Python code in this process.

Their code runs with the interpreter lock, on a thread of the engine or on that of a caller of `infer`; it may call other models
of the engine. What should not share this lock belongs into worker processes (backend "python").
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastserve import _core
from fastserve.embedding.types import Array
from fastserve.errors import FailedPrecondition, InvalidArgument


@dataclass(frozen=True)
class Tensor:
    """Name, OIP datatype ("FP32") and shape (-1 = any; the batch dimension in front where the model batches)."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be run: the rows of one or more requests, gathered.

    `inputs`: {name: array}, read-only; rows first where the model batches. An array that is kept beyond `execute` stays valid,
    and keeps the memory of its batch. BYTES are object arrays of `bytes`, BF16 comes as float32.
    """

    inputs: dict[str, Array]
    rows: int
    requests: int


@dataclass(frozen=True)
class BackendLoad:
    """One instance of a model that is being loaded."""

    model: str
    version: int
    path: str
    parameters: dict[str, str]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_rows: int  # 0: it does not batch
    instance: int


Execute = Callable[[Batch], Mapping[str, Array]]


class BackendModel(Protocol):
    """A class for register_backend: one object for each instance of a model. `close()`, where there is one, is called when the
    model is unloaded."""

    def __init__(self, load: BackendLoad, /) -> None: ...
    def execute(self, batch: Batch, /) -> Mapping[str, Array]: ...


# .executing: the engines whose Python models this thread is running. An engine is known by a token, because its backends must
# not keep it alive.
_here = threading.local()


def check_not_executing(engine: object, what: str) -> None:
    """What waits for running batches would wait for itself."""
    if engine in getattr(_here, "executing", ()):
        raise FailedPrecondition(f"{what} inside execute of a model of the same engine would wait for itself")


class _Instance:
    """What C++ calls: one instance of one model."""

    def __init__(self, engine: object, execute: Execute, close: Callable[[], object] | None) -> None:
        self._engine = engine
        self._execute = execute
        self._close = close

    def __call__(self, inputs: dict[str, Array], rows: int, requests: int) -> dict[str, Array]:
        outer = getattr(_here, "executing", ())
        _here.executing = (*outer, self._engine)
        try:
            outputs = self._execute(Batch(inputs, rows, requests))
        finally:
            _here.executing = outer
        return outputs if isinstance(outputs, dict) or not isinstance(outputs, Mapping) else dict(outputs)

    def close(self) -> None:
        if self._close is not None:
            self._close()


def maker(engine: object, code: Execute | type[BackendModel]) -> Callable[..., _Instance]:
    """What C++ calls for every instance."""
    if not callable(code):
        raise InvalidArgument(f"code: got {type(code).__name__}, want a function or a class with execute")

    def make(
        spec: _core.LoadSpec,
        max_batch_rows: int,
        inputs: Sequence[_core.TensorSpec],
        outputs: Sequence[_core.TensorSpec],
        instance: int,
    ) -> _Instance:
        if not inspect.isclass(code):
            return _Instance(engine, code, None)
        load = BackendLoad(
            spec.model,
            spec.version,
            spec.path,
            dict(spec.parameters),
            tensors(inputs),
            tensors(outputs),
            max_batch_rows,
            instance,
        )
        model_class: Any = code
        model = model_class(load)
        return _Instance(engine, model.execute, getattr(model, "close", None))

    return make


def tensors(specs: Sequence[_core.TensorSpec]) -> tuple[Tensor, ...]:
    return tuple(Tensor(s.name, s.datatype, tuple(s.shape), s.optional) for s in specs)


def tensor_specs(given: Sequence[Tensor]) -> list[_core.TensorSpec]:
    return [_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in given]
