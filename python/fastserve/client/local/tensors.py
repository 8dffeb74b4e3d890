"""numpy arrays on the memory of a slot, and what a slot needs room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve import _core
from fastserve.client.tensors import DTYPES, bfloat16, datatype_of, from_bytes, to_bytes
from fastserve.errors import InvalidArgument

Array = npt.NDArray[Any]
Plan = tuple[
    list[tuple[int, Sequence[int], int]], list[tuple[int, int]]
]  # (index, shape, bytes), (index, room)

OPEN_ROOM = 1 << 20  # bytes for an output whose size the signature leaves open


def dtype_for(datatype: str) -> np.dtype[Any]:
    """Of the view on a slot. BF16: ml_dtypes' where that is installed, else its bits."""
    if datatype == "BF16":
        return bfloat16() or np.dtype("<u2")
    return np.dtype(DTYPES[datatype])


def view(datatype: str, shape: Sequence[int], memory: Array) -> Array:
    """A view; of BYTES a copy, as an object array of bytes."""
    if datatype == "BYTES":
        return from_bytes(datatype, shape, memory.tobytes())
    return memory.view(dtype_for(datatype)).reshape(shape)


def encode(spec: _core.TensorSpec, value: Any) -> tuple[Array, bytes | memoryview | None]:
    """The array, and its bytes where a view cannot simply be filled with it (BYTES)."""
    array = np.asarray(value)
    if spec.datatype == "BYTES":
        if datatype_of(array) != "BYTES":
            raise InvalidArgument(f'inputs["{spec.name}"]: got dtype {array.dtype}, want strings')
        return array, to_bytes("BYTES", array)
    given = datatype_of(array)
    if given != spec.datatype and not (spec.datatype == "BF16" and given in {"UINT16", "FP32"}):
        raise InvalidArgument(f'inputs["{spec.name}"]: got dtype {array.dtype}, want that of {spec.datatype}')
    return array, to_bytes("BF16", array) if spec.datatype == "BF16" else None


def plan_for(
    model: _core.LocalModel,
    encoded: Mapping[str, tuple[Array, bytes | memoryview | None]],
    outputs: Sequence[str],
    room: Mapping[str, int],
) -> Plan:
    """Of a request with these inputs. `outputs` empty: all."""
    indices = {spec.name: i for i, spec in enumerate(model.inputs)}
    inputs: list[tuple[int, Sequence[int], int]] = []
    rows = 1
    for name, (array, raw) in encoded.items():
        if model.max_batch_rows > 0 and array.ndim > 0:
            rows = array.shape[0]
        inputs.append((indices[name], array.shape, array.nbytes if raw is None else len(raw)))
    return inputs, rooms(model, rows, outputs, room)


def rooms(
    model: _core.LocalModel, rows: int, outputs: Sequence[str], room: Mapping[str, int]
) -> list[tuple[int, int]]:
    known = [spec.name for spec in model.outputs]
    for name in [*outputs, *room]:
        if name not in known:
            raise InvalidArgument(f'outputs["{name}"]: the model has {", ".join(known)}')
    return [
        (i, room.get(spec.name, _room(model, spec, rows)))
        for i, spec in enumerate(model.outputs)
        if not outputs or spec.name in outputs
    ]


def _room(model: _core.LocalModel, spec: _core.TensorSpec, rows: int) -> int:
    shape = list(spec.shape)
    if model.max_batch_rows > 0 and shape:
        shape[0] = rows
    if spec.datatype == "BYTES" or any(dim < 0 for dim in shape):
        return OPEN_ROOM
    return int(np.prod(shape, dtype=np.int64)) * dtype_for(spec.datatype).itemsize
