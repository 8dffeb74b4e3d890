"""Which files an ONNX model consists of: the file itself, and those in which it keeps large tensors (external data).

Reads the few fields of the protobuf message that say so (onnx.proto: ModelProto.graph, TensorProto.external_data, and where
graphs and tensors stand inside of nodes), so that neither onnx nor protobuf is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fastserve import errors

# Message -> field number -> message in that field.
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_EXTERNAL_DATA, _KEY, _VALUE = 13, 1, 2  # TensorProto.external_data: StringStringEntryProto
_MOST_DEPTH = 64
_HASH_BYTES = 1 << 20


def external_files(model: bytes | memoryview) -> list[str]:
    """Their names beside the model, sorted. InvalidArgument: the file is no ONNX model, or leads out of its folder."""
    try:
        names = sorted(set(_locations(memoryview(model), "Model", 0)))
    except (IndexError, ValueError, RecursionError) as error:
        raise errors.InvalidArgument(f"is no ONNX model: {error}") from None
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            raise errors.InvalidArgument(f"external data in '{name}', which leaves the model's folder")
    return names


def hashes(path: Path, model: bytes | memoryview) -> dict[str, str]:
    """SHA-256 of all of it by name, the model's own under "". InvalidArgument: a file is missing."""
    found = {"": hashlib.sha256(model).hexdigest()}
    for name in external_files(model):
        try:
            found[name] = _hash_of(path.parent / name)
        except OSError as error:
            raise errors.InvalidArgument(f"external data '{name}': {error.strerror or error}") from None
    return found


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > _MOST_DEPTH:
        raise ValueError(f"nested deeper than {_MOST_DEPTH}")
    for number, content in _parts(message):
        if kind == "Tensor":
            if number == _EXTERNAL_DATA:
                entry = dict(_parts(content))
                if bytes(entry.get(_KEY, b"")) == b"location":
                    yield bytes(entry.get(_VALUE, b"")).decode()
        elif number in _FIELDS[kind]:
            yield from _locations(content, _FIELDS[kind][number], depth + 1)


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Fields that have a length; the others are passed over. IndexError, ValueError: it is no message."""
    at = 0
    while at < len(message):
        tag, at = _number(message, at)
        match tag & 7:
            case 0:
                _, at = _number(message, at)
            case 1:
                at += 8
            case 2:
                size, at = _number(message, at)
                if size > len(message) - at:
                    raise ValueError("it is cut off")
                yield tag >> 3, message[at : at + size]
                at += size
            case 5:
                at += 4
            case wire:
                raise ValueError(f"wire type {wire}")
        if at > len(message):
            raise ValueError("it is cut off")


def _number(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number of more than 10 bytes")
