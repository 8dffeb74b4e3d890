"""pb_utils.Tensor: a named numpy array, and DLPack both ways."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from fastserve.worker.models.tensors import NUMPY, datatype_of

if TYPE_CHECKING:
    from fastserve.worker.model import Array

CPU = (1, 0)  # DLPack's device type and id


class DataType(IntEnum):
    """inference.DataType's numbers, which are also those of Triton's C API; fixed-size types and BYTES."""

    INVALID = 0
    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13
    BF16 = 14


class Tensor:
    """Of an input the array is a view that ends with `execute`; BF16 is float32."""

    def __init__(self, name: str, array: Array) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError(f"Tensor '{name}': got {type(array).__name__}, want a numpy array")
        if not datatype_of(array.dtype):
            raise ValueError(f"Tensor '{name}': dtype {array.dtype} is none of Triton's")
        self._name = name
        self._array = array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Array:
        return self._array

    def shape(self) -> list[int]:
        return list(self._array.shape)

    def triton_dtype(self) -> DataType:
        return DataType[datatype_of(self._array.dtype)]

    def is_cpu(self) -> bool:
        return True

    def to_dlpack(self) -> Any:
        """A capsule; it holds the array."""
        return self.__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        if self._array.dtype.kind in "SUO":
            raise ValueError(f"Tensor '{self._name}': strings have no DLPack form")
        array = self._array if self._array.flags.writeable else self._array.copy()
        options.pop("stream", None)
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU

    @staticmethod
    def from_dlpack(name: str, source: Any) -> Tensor:
        """`source`: a capsule, or anything with `__dlpack__` on the CPU. Shares its memory."""
        if not hasattr(source, "__dlpack__"):
            source = _Capsule(source)
        return Tensor(name, np.from_dlpack(source))


class _Capsule:
    """What np.from_dlpack wants around a bare capsule."""

    def __init__(self, capsule: Any) -> None:
        if type(capsule).__name__ != "PyCapsule":
            raise TypeError(f"from_dlpack: got {type(capsule).__name__}, want a capsule or __dlpack__")
        self._capsule = capsule

    def __dlpack__(self, **_options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU


def triton_to_numpy_type(data_type: int) -> Any:
    """A DataType's number -> numpy's scalar type (np.object_ for strings)."""
    return NUMPY[DataType(data_type).name].type


def numpy_to_triton_type(dtype: Any) -> int:
    return int(DataType[datatype_of(np.dtype(dtype)) or "INVALID"])


def triton_string_to_numpy(text: str) -> Any:
    """ "TYPE_FP32" -> np.float32."""
    name = text.removeprefix("TYPE_").replace("STRING", "BYTES")
    if name not in NUMPY or name == "BF16":
        raise ValueError(f"'{text}' has no numpy type")
    return NUMPY[name].type


def serialize_byte_tensor(array: Array) -> Array:
    """Strings -> one array of uint8: the length of each (4 bytes, little-endian), then its bytes."""
    if array.dtype.kind not in "SUO":
        raise ValueError(f"serialize_byte_tensor: got dtype {array.dtype}, want bytes or str")
    parts = []
    for element in array.ravel():
        data = element if isinstance(element, bytes) else str(element).encode()
        parts += [len(data).to_bytes(4, "little"), data]
    return np.frombuffer(b"".join(parts), np.uint8)


def deserialize_bytes_tensor(encoded: Any) -> Array:
    """The reverse; one dimension."""
    data, at = bytes(encoded), 0
    found: list[bytes] = []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if at + size > len(data):
            raise ValueError(f"deserialize_bytes_tensor: element {len(found)} is cut off")
        found.append(data[at : at + size])
        at += size
    out = np.empty(len(found), np.object_)
    out[:] = found
    return out
