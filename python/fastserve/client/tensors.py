"""numpy arrays <-> tensors of the wire: datatypes, raw bytes, JSON values.

| on the wire | numpy, in | numpy, out |
|---|---|---|
| BOOL, (U)INT8..64, FP16, FP32, FP64 | the dtype of that name | the same, read-only: a view of the received bytes |
| BYTES | object arrays of bytes or str (as UTF-8), dtypes S and U | object array of bytes |
| BF16 | ml_dtypes.bfloat16, or `Input(array, "BF16")` | ml_dtypes.bfloat16 if that package is there, else uint16 bits |

`Input(array, "BF16")` takes uint16 (the bits themselves) and any float dtype (rounded to nearest, ties to even). Raw
bytes are little-endian (Triton's binary tensor data extension); FP16 and BF16 do not exist in JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import InvalidArgument

Array = npt.NDArray[Any]

# Without BF16 and BYTES, which numpy has no fixed-size dtype for.
DTYPES = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
_NAMES = {np.dtype(code): name for name, code in DTYPES.items()}


@dataclass(frozen=True)
class Input:
    """An input whose datatype the array's dtype does not tell: `Input(bits, "BF16")`."""

    array: npt.ArrayLike
    datatype: str = ""  # empty: by the dtype


@dataclass(frozen=True)
class Output:
    """A wanted output. `classification`: the k best classes as "value:index:label" strings instead of the values."""

    name: str
    classification: int = 0


@dataclass(frozen=True)
class WireTensor:
    """An input ready to be encoded."""

    name: str
    datatype: str
    array: Array

    @property
    def shape(self) -> list[int]:
        return list(self.array.shape)

    def raw(self) -> bytes | memoryview:
        return to_bytes(self.datatype, self.array)


@cache
def bfloat16() -> np.dtype[Any] | None:
    """ml_dtypes' dtype where the package is installed."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def wire_tensors(inputs: Mapping[str, Any]) -> list[WireTensor]:
    """Raises InvalidArgument for dtypes that have no datatype on the wire."""
    return [_wire_tensor(name, value) for name, value in inputs.items()]


def _wire_tensor(name: str, value: Any) -> WireTensor:
    given = value if isinstance(value, Input) else Input(value)
    array = np.asarray(given.array)
    datatype = given.datatype or datatype_of(array)
    if not datatype:
        raise InvalidArgument(
            f'inputs["{name}"]: got dtype {array.dtype}, expected one with a datatype on the wire'
        )
    if datatype not in DTYPES and datatype not in {"BF16", "BYTES"}:
        raise InvalidArgument(
            f'inputs["{name}"].datatype: got "{datatype}", expected {", ".join(DTYPES)}, BF16 or BYTES'
        )
    if given.datatype and datatype in DTYPES and array.dtype != DTYPES[datatype]:
        raise InvalidArgument(f'inputs["{name}"]: got dtype {array.dtype}, expected that of {datatype}')
    return WireTensor(name, datatype, array)


def datatype_of(array: Array) -> str:
    """ "" when there is none."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    if array.dtype == bfloat16():
        return "BF16"
    return _NAMES.get(array.dtype.newbyteorder("<"), "")


def to_bytes(datatype: str, array: Array) -> bytes | memoryview:
    """Row-major and little-endian; a view where the array is that already."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(element)) + element for element in _elements(array))
    if datatype == "BF16":
        array = _bf16_bits(array)
    fixed = np.ascontiguousarray(array, DTYPES.get(datatype, "<u2"))
    return fixed.reshape(-1).view(np.uint8).data


def _elements(array: Array) -> list[bytes]:
    return [e if isinstance(e, bytes) else str(e).encode() for e in array.ravel().tolist()]


def _bf16_bits(array: Array) -> Array:
    if array.dtype == np.uint16:
        return array
    if array.dtype == bfloat16():
        return array.view(np.uint16)
    wide = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded = (wide + (0x7FFF + ((wide >> 16) & 1))) >> 16
    nan = (wide >> 16) | 0x40  # rounding up could carry a NaN over into infinity
    return np.asarray(np.where(np.isnan(array.astype("<f4")), nan, rounded), "<u2")


def from_bytes(datatype: str, shape: Sequence[int], data: bytes | memoryview) -> Array:
    """Raises ValueError when the bytes do not fit the shape."""
    if datatype == "BYTES":
        return _filled(_split(data), shape)
    if datatype == "BF16":
        bits = np.frombuffer(data, "<u2").reshape(shape)
        kind = bfloat16()
        return bits if kind is None else bits.view(kind)
    return np.frombuffer(data, _dtype(datatype)).reshape(shape)


def _split(data: bytes | memoryview) -> list[bytes]:
    elements, at = [], 0
    while at < len(data):
        if at + 4 > len(data):
            raise ValueError("a string tensor ends inside a length")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4 + length
        if at > len(data):
            raise ValueError("a string tensor ends inside an element")
        elements.append(bytes(data[at - length : at]))
    return elements


def _filled(elements: Sequence[Any], shape: Sequence[int]) -> Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _dtype(datatype: str) -> str:
    if datatype not in DTYPES:
        raise ValueError(f"unknown datatype '{datatype}'")
    return DTYPES[datatype]


def to_values(tensor: WireTensor) -> list[Any]:
    """Flat values for JSON. Raises InvalidArgument for what JSON cannot carry."""
    if tensor.datatype in {"FP16", "BF16"}:
        raise InvalidArgument(
            f'inputs["{tensor.name}"].datatype: got {tensor.datatype}, which has no form in JSON, '
            "and the server does not list the extension binary_tensor_data"
        )
    if tensor.datatype != "BYTES":
        return list(tensor.array.ravel().tolist())
    try:
        return [element.decode() for element in _elements(tensor.array)]
    except UnicodeDecodeError:
        raise InvalidArgument(
            f'inputs["{tensor.name}"]: holds strings that are not UTF-8, and the server does not list the '
            "extension binary_tensor_data"
        ) from None


def from_values(datatype: str, shape: Sequence[int], values: Any) -> Array:
    """From JSON, flat or nested."""
    if datatype == "BYTES":
        flat = _flattened(values)
        return _filled([v.encode() if isinstance(v, str) else bytes(v) for v in flat], shape)
    if datatype == "BF16":  # OpenVINO Model Server does so
        return from_bytes("BF16", shape, to_bytes("BF16", np.array(values, "<f4")))
    return np.array(values, _dtype(datatype)).reshape(shape)


def _flattened(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [leaf for value in values for leaf in (_flattened(value) if isinstance(value, list) else [value])]
