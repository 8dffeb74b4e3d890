"""Pickles over a pipe, each behind its length. Between our own processes only."""

from __future__ import annotations

import pickle
import struct
from typing import Any, Protocol

_LENGTH = struct.Struct(">Q")


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class _Writable(Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


def write(pipe: _Writable, message: object) -> None:
    content = pickle.dumps(message)
    left = memoryview(_LENGTH.pack(len(content)) + content)
    while left:
        left = left[pipe.write(left) or 0 :]


def read(pipe: _Readable) -> Any:
    """Raises EOFError at the end of the pipe. A raw pipe gives less than asked for, hence the loop."""
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))


def _exactly(pipe: _Readable, count: int) -> bytes:
    parts = []
    while count:
        part = pipe.read(count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
