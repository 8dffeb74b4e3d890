"""What the blocking and the asyncio client share: models by name, slots and their views. No I/O but the connection's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastserve import _core, errors
from fastserve.client.local.tensors import Array, Plan, encode, plan_for, rooms, view
from fastserve.errors import InvalidArgument

_core.set_error_factory(errors.from_code)

Parameters = Mapping[str, bool | int | float | str]

KEPT_SLOTS = 64  # of the same shapes, for infer()


class LocalResult(dict[str, Array]):
    """The outputs by name. `parameters`: what the model said beside them."""

    parameters: dict[str, bool | int | float | str]

    def __init__(self, outputs: Mapping[str, Array], parameters: dict[str, bool | int | float | str]) -> None:
        super().__init__(outputs)
        self.parameters = parameters

    def copied(self) -> LocalResult:
        return LocalResult({name: np.array(array) for name, array in self.items()}, self.parameters)


class SlotViews:
    """A slot's arrays. `inputs` are made once; `result()` after each answer."""

    def __init__(self, model: _core.LocalModel, core: _core.LocalSlot, plan: Plan) -> None:
        self.model = model
        self.core = core
        self._names = [model.outputs[index].name for index, _ in plan[1]]
        self._memory = {model.inputs[index].name: (i, shape) for i, (index, shape, _) in enumerate(plan[0])}
        self._specs = {spec.name: spec for spec in model.inputs}
        self.inputs: dict[str, Array] = {
            name: view(self._specs[name].datatype, shape, core.input_memory(i))
            for name, (i, shape) in self._memory.items()
            if self._specs[name].datatype != "BYTES"
        }

    def fill(self, name: str, array: Array, raw: bytes | memoryview | None) -> None:
        """`raw`: its bytes, as encode() said."""
        if raw is None:
            self.inputs[name][...] = array
            return
        at, _ = self._memory[name]
        self.core.reshape(at, array.shape, len(raw))
        self.core.input_memory(at)[: len(raw)] = memoryview(raw)

    def set_strings(self, name: str, value: Any) -> None:
        spec = self._specs.get(name)
        if spec is None or spec.datatype != "BYTES":
            raise InvalidArgument(f'inputs["{name}"]: is no input of strings')
        self.fill(name, *encode(spec, value))

    def result(self) -> LocalResult:
        """Views on the outputs; raises what the server answered."""
        self.core.raise_if_failed()
        outputs = {name: view(*self.core.output(i)) for i, name in enumerate(self._names)}
        return LocalResult(outputs, self.core.parameters)

    def options(
        self,
        request_id: str,
        priority: int,
        timeout: float | None,
        queue_timeout: float | None,
        parameters: Parameters | None,
    ) -> None:
        self.core.set_id(request_id)
        self.core.set_priority(priority)
        self.core.set_timeout_us(_microseconds(timeout))
        self.core.set_queue_timeout_us(_microseconds(queue_timeout))
        self.core.set_parameters(dict(parameters) if parameters else {})


class Models:
    """Models that were asked for, and slots of infer() that wait to be used again."""

    def __init__(self, connection: _core.LocalConnection) -> None:
        self._connection = connection
        self._models: dict[tuple[str, str], _core.LocalModel] = {}
        self._idle: dict[Any, list[SlotViews]] = defaultdict(list)

    def find(self, name: str, version: str) -> _core.LocalModel:
        found = self._models.get((name, version))
        if found is None:
            found = self._models[name, version] = self._connection.open(name, version)
        return found

    def refresh(self, name: str, version: str) -> _core.LocalModel:
        """Asks again: another version may answer now."""
        self._models.pop((name, version), None)
        return self.find(name, version)

    def slot(
        self,
        model: _core.LocalModel,
        rows: int,
        shapes: Mapping[str, Sequence[int]] | None,
        room: Mapping[str, int] | None,
        outputs: Sequence[str],
    ) -> SlotViews:
        if shapes is None and not room and not outputs:
            inputs, places = model.plan(rows)
        else:
            inputs = [
                (i, _shape(model, spec, rows, shapes or {}), (room or {}).get(spec.name, 0))
                for i, spec in enumerate(model.inputs)
                if not spec.optional or spec.name in (shapes or {})
            ]
            given = {name: size for name, size in (room or {}).items() if name not in _names(model.inputs)}
            places = rooms(model, rows, outputs, given)
        return SlotViews(model, model.make_slot(inputs, places), (inputs, places))

    def filled(
        self,
        name: str,
        version: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        room: Mapping[str, int],
    ) -> tuple[SlotViews, Any]:
        """A slot with these inputs in it, and the key under which `put_back` keeps it."""
        model = self.find(name, version)
        specs = {spec.name: spec for spec in model.inputs}
        for given in inputs:
            if given not in specs:
                raise InvalidArgument(f'inputs["{given}"]: the model has {", ".join(specs)}')
        encoded = {each: encode(specs[each], value) for each, value in inputs.items()}
        plan = plan_for(model, encoded, outputs, room)
        key = (model.number, tuple((i, tuple(shape), size) for i, shape, size in plan[0]), tuple(plan[1]))
        idle = self._idle[key]
        views = idle.pop() if idle else SlotViews(model, model.make_slot(*plan), plan)
        for each, (array, raw) in encoded.items():
            views.fill(each, array, raw)
        return views, key

    def put_back(self, key: Any, views: SlotViews) -> None:
        if len(self._idle) > KEPT_SLOTS:
            self._idle.clear()
        if not views.core.in_flight and len(self._idle[key]) < KEPT_SLOTS:
            self._idle[key].append(views)

    def clear(self) -> None:
        self._idle.clear()


def path_of(address: str) -> str:
    """`unix:/path` or `/path`."""
    return address.removeprefix("unix:")


def _names(specs: Sequence[_core.TensorSpec]) -> set[str]:
    return {spec.name for spec in specs}


def _shape(
    model: _core.LocalModel, spec: _core.TensorSpec, rows: int, shapes: Mapping[str, Sequence[int]]
) -> list[int]:
    shape = list(shapes.get(spec.name, spec.shape))
    if spec.name not in shapes and model.max_batch_rows > 0 and shape:
        shape[0] = rows
    if any(dim < 0 for dim in shape):
        raise InvalidArgument(
            f'shapes["{spec.name}"]: the signature leaves {list(spec.shape)} open: say the shape'
        )
    return shape


def _microseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, int(seconds * 1e6))
