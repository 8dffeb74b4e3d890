"""Whether the weights of an ONNX file can be what it says: looked at before a backend loads it, which may not look (OpenVINO
takes a negative size of weights that lie in another file without a word).

Every tensor of the graph and of graphs inside it: no negative dimension; and where its data lies elsewhere (external_data), a
file of the model's own folder that is there and long enough, and sizes that fit the tensor's. Field numbers: onnx.proto of ONNX
1.17. Reads names and sizes and skips data, so that it takes milliseconds however large the model is. What is no ONNX at all is
the backend's to say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple, cast

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.regular_file import open_regular

MAX_DEPTH = 32  # of graphs inside of graphs; deeper ones are not looked at
MAX_TEXT = 4096  # bytes of a name or a location
_SHOWN = 64  # characters of a name in messages

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Fields that lead to tensors, by message: number -> what stands there.
_INSIDE = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_DIMS, _DTYPE, _NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14  # of a tensor

# data_type -> bits of an element
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16,
         17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4}  # fmt: skip


class _Malformed(Exception):
    """No protobuf message."""


class _Field(NamedTuple):
    number: int
    value: int  # of a varint; else where its bytes begin
    size: int  # of bytes; -1: a varint


class _Message:
    """A part of the file."""

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file, self._at, self._end = file, begin, end

    def fields(self) -> Iterator[_Field]:
        while self._at < self._end:
            self._file.seek(self._at)
            key = self._varint()
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                yield _Field(number, self._varint(), -1)
                continue
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire, -1)
            if wire == _BYTES:
                size = self._varint()
            begin = self._at
            if size < 0 or begin + size > self._end:
                raise _Malformed
            self._at = begin + size
            yield _Field(number, begin, size)

    def inner(self, field: _Field) -> _Message:
        return _Message(self._file, field.value, field.value + max(field.size, 0))

    def content(self, field: _Field) -> bytes:
        """At most MAX_TEXT of it."""
        self._file.seek(field.value)
        return self._file.read(min(max(field.size, 0), MAX_TEXT))

    def numbers(self, field: _Field) -> list[int]:
        """Of a repeated int64, packed or not."""
        if field.size < 0:
            return [_signed(field.value)]
        packed, found = self.inner(field), []
        self._file.seek(field.value)
        while packed._at < packed._end:
            found.append(_signed(packed._varint()))
        return found

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._file.read(1)
            if not byte or self._at >= self._end or shift > 63:
                raise _Malformed
            self._at += 1
            value |= (byte[0] & 127) << shift
            if byte[0] < 128:
                return value & 0xFFFFFFFFFFFFFFFF
            shift += 7


def check(path: Path) -> None:
    """InvalidArgument: the first tensor that cannot be right, with field and value. Nothing is said of what cannot be read or is
    no ONNX."""
    if path.is_dir():
        path = path / "model.onnx"
    if path.suffix != ".onnx":
        return
    try:
        with open_regular(path) as raw:
            file = cast(BinaryIO, BufferedReader(raw, 1 << 14))
            _Model(path.parent).look(_Message(file, 0, os.fstat(raw.fileno()).st_size), "model", 0)
    except (OSError, _Malformed):
        return


class _Model:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}  # of files, by location

    def look(self, message: _Message, kind: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        for field in message.fields():
            what = _INSIDE[kind].get(field.number)
            if what is None or field.size < 0:
                continue
            if what == "tensor":
                self._tensor(message.inner(field))
            else:
                self.look(message.inner(field), what, depth + (what == "graph"))

    def _tensor(self, message: _Message) -> None:
        dims: list[int] = []
        dtype = 0
        name = ""
        elsewhere = False
        entries: dict[str, str] = {}
        for field in message.fields():
            if field.number == _DIMS:
                dims += message.numbers(field)
            elif field.number == _DTYPE:
                dtype = field.value
            elif field.number == _NAME:
                name = message.content(field).decode("utf-8", "replace")
            elif field.number == _LOCATION:
                elsewhere = field.value == 1
            elif field.number == _EXTERNAL:
                key, value = _entry(message.inner(field))
                entries[key] = value
        where = f"weights '{name[:_SHOWN]}'"
        for index, dim in enumerate(dims):
            if dim < 0:
                raise InvalidArgument(f"{where}: dims[{index}]: got {dim}, want 0 or more")
        if elsewhere:
            self._external(where, entries, _bytes_of(dims, dtype))

    def _external(self, where: str, entries: dict[str, str], wanted: int | None) -> None:
        size = self._file_size(where, entries.get("location", ""))
        offset = _number(where, "offset", entries.get("offset", "0"))
        length = _number(where, "length", entries["length"]) if "length" in entries else None
        location = entries["location"][:_SHOWN]
        if offset > size or (length is not None and offset + length > size):
            end = f"offset {offset}" if length is None else f"offset {offset} and length {length}"
            raise InvalidArgument(f"{where}: external_data: got {end}, '{location}' has {size} bytes")
        if wanted is None:
            return
        if length is not None and length != wanted:
            raise InvalidArgument(
                f"{where}: external_data.length: got {length}, want {wanted}, which its dims and data_type make"
            )
        if length is None and offset + wanted > size:
            raise InvalidArgument(
                f"{where}: external_data: got offset {offset} and {wanted} bytes, '{location}' has {size}"
            )

    def _file_size(self, where: str, location: str) -> int:
        field = f"{where}: external_data.location: got '{location[:_SHOWN]}'"
        if location in self._sizes:
            return self._sizes[location]
        pure = PurePosixPath(location)
        if not location or pure.is_absolute() or ".." in pure.parts or "\0" in location:
            raise InvalidArgument(f"{field}, want a file of the model's folder")
        path = self._folder / pure
        try:
            with open_regular(path) as file:
                self._sizes[location] = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise InvalidArgument(f"{field}, which cannot be read: {error.strerror or error}") from None
        return self._sizes[location]


def _entry(message: _Message) -> tuple[str, str]:
    texts = {f.number: message.content(f).decode("utf-8", "replace") for f in message.fields()}
    return texts.get(1, ""), texts.get(2, "")


def _number(where: str, key: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 63:
        raise InvalidArgument(f"{where}: external_data.{key}: got '{text[:_SHOWN]}', want 0 or more bytes")
    return int(text)


def _bytes_of(dims: list[int], dtype: int) -> int | None:
    bits = _BITS.get(dtype)
    if bits is None:
        return None
    for dim in dims:
        bits *= dim
    return (bits + 7) // 8


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
