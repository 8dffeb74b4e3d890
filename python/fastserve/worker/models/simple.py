"""Our own form of a Python model: a function or class with typed inputs.

    from fastserve.worker.models import model

    @model(inputs={"x": ("FP32", [4])}, outputs={"y": ("FP32", [2])}, max_batch_rows=32)
    def halves(x):                      # all rows of a batch: [rows, 4] -> [rows, 2]
        return x[:, :2] / 2

More in README.md (folder above). `inputs` and `outputs` left out come from annotations:
`x: Annotated[np.ndarray, "FP32", 4]`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fastserve import errors
from fastserve.worker.models.tensors import NUMPY, quoted, rows_of, wrong_output
from fastserve.worker.models.whole import WholeBatch

if TYPE_CHECKING:
    from fastserve.worker.model import Answer, Array, ModelSpec, Request

MARK = "__fastserve_model__"
Typed = tuple[str, Sequence[int]]  # datatype, dims without the rows
Made = TypeVar("Made", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declared:
    """What the decorator was told; (datatype, dims) by name."""

    inputs: dict[str, Typed]
    outputs: dict[str, Typed]
    max_batch_rows: int
    per_request: bool


def model(
    *,
    inputs: Mapping[str, Typed] | None = None,
    outputs: Mapping[str, Typed] | None = None,
    max_batch_rows: int = 0,
    per_request: bool = False,
) -> Callable[[Made], Made]:
    """Makes a function, or a class with `__call__`, the model of its model.py.

    `max_batch_rows` > 0: called with the rows of all requests of a batch, one behind the other; dims are those of a row.
    0: called for each request, with the shapes as they are declared. `per_request`: called for each request of a batch.
    A parameter named `request` gets the fastserve.worker.model.Request, and makes it per request.
    It returns {output: array}, or the one output's array, or a tuple in the order of `outputs`.
    """

    def mark(made: Made) -> Made:
        call = made.__call__ if inspect.isclass(made) else made
        takes_request = "request" in inspect.signature(call).parameters
        declared = Declared(
            dict(inputs) if inputs is not None else _annotated_inputs(call),
            dict(outputs) if outputs is not None else _annotated_outputs(call),
            max_batch_rows,
            per_request or takes_request,
        )
        _check(declared, call)
        setattr(made, MARK, declared)
        return made

    return mark


def _typed(annotation: Any) -> Typed | None:
    """Annotated[np.ndarray, "FP32", 4, -1] -> ("FP32", (4, -1))."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return None
    extra = annotation.__metadata__
    if not extra or not isinstance(extra[0], str) or not all(isinstance(dim, int) for dim in extra[1:]):
        return None
    return extra[0], tuple(extra[1:])


def _annotated_inputs(call: Any) -> dict[str, Typed]:
    found = {}
    hints = typing.get_type_hints(call, include_extras=True)
    for name in inspect.signature(call).parameters:
        if name in {"self", "request"}:
            continue
        typed = _typed(hints.get(name))
        if typed is None:
            raise errors.InvalidArgument(
                f"model: parameter '{name}' has no type: annotate it as "
                'Annotated[np.ndarray, "FP32", 4] or give inputs={...}'
            )
        found[name] = typed
    return found


def _annotated_outputs(call: Any) -> dict[str, Typed]:
    """One array is called "output"; a TypedDict names several."""
    result = typing.get_type_hints(call, include_extras=True).get("return")
    if (typed := _typed(result)) is not None:
        return {"output": typed}
    found = {}
    if typing.is_typeddict(result):
        for name, annotation in typing.get_type_hints(result, include_extras=True).items():
            if (typed := _typed(annotation)) is not None:
                found[name] = typed
    return found


def _check(declared: Declared, call: Any) -> None:
    for side, tensors in (("inputs", declared.inputs), ("outputs", declared.outputs)):
        if not tensors:
            raise errors.InvalidArgument(f'model: {side} are missing, want {side}={{"x": ("FP32", [4])}}')
        for name, (datatype, dims) in tensors.items():
            if datatype not in NUMPY:
                raise errors.InvalidArgument(
                    f'model: {side}["{name}"]: datatype: got "{datatype}", want one of {", ".join(NUMPY)}'
                )
            if any(dim < 1 and dim != -1 for dim in dims):
                raise errors.InvalidArgument(
                    f'model: {side}["{name}"]: dims: got {list(dims)}, want -1 (any) or at least 1'
                )
    if declared.max_batch_rows < 0:
        raise errors.InvalidArgument(f"model: max_batch_rows: got {declared.max_batch_rows}, want at least 0")
    parameters = inspect.signature(call).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    if unknown := [name for name in declared.inputs if name not in parameters]:
        raise errors.InvalidArgument(f"model: the function takes no parameter {quoted(unknown)}")


class SimpleModel(WholeBatch):
    """A declared model, open."""

    def __init__(self, made: Any, spec: ModelSpec) -> None:
        declared: Declared = getattr(made, MARK)
        self._target = _instance(made, spec) if inspect.isclass(made) else made
        self._passes_request = "request" in inspect.signature(self._target).parameters
        self.description = _describe(declared, spec)
        self._outputs = {output.name: output for output in self.description.outputs}
        self._singly = declared.per_request
        if self._singly:
            self.execute_whole = None  # type: ignore[method-assign, assignment]  # the channel asks for it

    def finalize(self) -> None:
        close = getattr(self._target, "close", None)
        if close is not None and not inspect.isfunction(self._target):
            close()

    def execute(self, requests: list[Request]) -> list[Answer]:
        if not self._singly:
            return super().execute(requests)
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Answer:
        """A request's fault is its own: the others of the batch are answered."""
        from fastserve.worker.model import Answer
        from fastserve.worker.models.failure import failure

        try:
            extra = {"request": request} if self._passes_request else {}
            outputs = self._named(self._target(**request.inputs, **extra))
            self._check(outputs, rows_of(request.inputs) if self.description.max_batch_rows else None)
        except Exception as error:
            return Answer(error=failure(error))
        wanted = request.outputs or tuple(outputs)
        return Answer({name: outputs[name] for name in wanted})

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        return self._named(self._target(**inputs))

    def _named(self, result: Any) -> dict[str, Array]:
        names = list(self._outputs)
        if isinstance(result, Mapping):
            pairs = dict(result)
        elif isinstance(result, tuple):
            if len(result) != len(names):
                raise errors.Internal(f"outputs: got {len(result)}, want {len(names)} ({quoted(names)})")
            pairs = dict(zip(names, result, strict=True))
        elif result is None:
            raise errors.Internal("outputs: the model returned None")
        elif len(names) == 1:
            pairs = {names[0]: result}
        else:
            raise errors.Internal(f"outputs: got one array, want {len(names)} ({quoted(names)})")
        for name in pairs:
            if name not in self._outputs:
                raise errors.Internal(f'outputs["{name}"]: the model has no such output')
        return {name: self._settled(name, value) for name, value in pairs.items()}

    def _settled(self, name: str, value: Any) -> Array:
        """Lists and scalars become arrays of the output's dtype; an array keeps its own, which is checked."""
        spec = self._outputs[name]
        if isinstance(value, np.ndarray):
            return value
        array = np.asarray(value) if hasattr(value, "__array__") else np.asarray(value, NUMPY[spec.datatype])
        if wrong := wrong_output(spec, array, None):
            raise errors.Internal(wrong)
        return array


def _instance(made: Any, spec: ModelSpec) -> Any:
    """`__init__(self)` or `__init__(self, args)`, where args are those of a TritonPythonModel."""
    from fastserve.worker.models.arguments import arguments

    takes_args = len(inspect.signature(made).parameters) > 0
    return made(arguments(spec, spec.config)) if takes_args else made()


def _describe(declared: Declared, spec: ModelSpec) -> Any:
    from fastserve.worker.model import Description, TensorSpec
    from fastserve.worker.models.tensors import configured

    rows = int(spec.config.get("max_batch_size", declared.max_batch_rows))
    if rows > 0 and declared.max_batch_rows == 0:
        raise errors.InvalidArgument(
            f"config.max_batch_size: got {rows}, but the model is made for single requests (max_batch_rows=0)"
        )
    front = [-1] if declared.max_batch_rows else []  # with max_batch_size 0 too: the rows of one request
    sides = []
    for side, tensors in (("input", declared.inputs), ("output", declared.outputs)):
        specs = [TensorSpec(name, kind, [*front, *dims]) for name, (kind, dims) in tensors.items()]
        for asked in configured(spec.config, side, batches=rows > 0):
            own = next((s for s in specs if s.name == asked.name), None)
            if own is None or own.datatype != asked.datatype:
                got = f"{asked.datatype}, want {own.datatype}" if own else "no such tensor in model.py"
                raise errors.InvalidArgument(f'config.{side}["{asked.name}"]: got {got}')
        sides.append(specs)
    return Description(rows, sides[0], sides[1], {"form": "fastserve"}, "python")
