"""Exceptions of fastserve: one class per status code, with gRPC's numbers.

The C++ side reports (code, message); `from_code` makes the exception (fastserve.engine tells it so: this module does
not load the engine, clients use it too). Front ends read `code` and answer with the gRPC status
or, by `HTTP_STATUS`, the HTTP status that Triton's clients expect.
"""

from __future__ import annotations

import re
from typing import ClassVar

# `inputs["image"].shape[1]` and its kind, as messages name the field that they are about.
_FIELD = re.compile(r'(?:inputs|outputs|parameters)(?:\[(?:\d+|"(?:[^"\\]|\\.)*")\]|\.\w+)+(?=: )')


class FastserveError(Exception):
    """Base of everything that fastserve raises on purpose. `code` is a gRPC status code."""

    code: ClassVar[int] = 2
    http_status: int | None = None  # set by fastserve.client where the answer came over HTTP
    request_id: str = ""  # set by fastserve.client for an error inside a stream

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""

    @property
    def field(self) -> str:
        """The field that the message names (`inputs["image"].shape[1]`); empty when it names none."""
        found = _FIELD.search(self.message)
        return found[0] if found else ""


class Cancelled(FastserveError):
    """The caller gave up."""

    code = 1


class InvalidArgument(FastserveError, ValueError):
    """The request (or model, or configuration) is wrong, whatever the state of the server."""

    code = 3


class DeadlineExceeded(FastserveError, TimeoutError):
    """The deadline passed before the answer was there."""

    code = 4


class NotFound(FastserveError, LookupError):
    """No such model, version or resource."""

    code = 5


class AlreadyExists(FastserveError):
    """It is there already, or is being made."""

    code = 6


class PermissionDenied(FastserveError):
    """Not allowed for this caller."""

    code = 7


class ResourceExhausted(FastserveError):
    """A limit was reached."""

    code = 8


class FailedPrecondition(FastserveError):
    """Not in this state; the state has to change first."""

    code = 9


class Aborted(FastserveError):
    """Given up in favour of something newer."""

    code = 10


class OutOfRange(FastserveError):
    """Past the end."""

    code = 11


class Unimplemented(FastserveError, NotImplementedError):
    """Not supported, or switched off."""

    code = 12


class Internal(FastserveError):
    """A fault of ours or of a backend."""

    code = 13


class Unavailable(FastserveError):
    """Not now: overloaded, draining, or not ready. Try again later."""

    code = 14


class Unauthenticated(FastserveError):
    """No or bad credentials."""

    code = 16


_BY_CODE: dict[int, type[FastserveError]] = {
    cls.code: cls
    for cls in (
        Cancelled,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        Unauthenticated,
    )
}

CODE_NAMES: dict[int, str] = {
    0: "OK",
    1: "CANCELLED",
    2: "UNKNOWN",
    3: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    10: "ABORTED",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
    16: "UNAUTHENTICATED",
}

# gRPC code -> HTTP status, as csrc/base/status.cc has it (a test compares the two).
HTTP_STATUS: dict[int, int] = {
    0: 200,
    1: 400,
    2: 400,
    3: 400,
    4: 504,
    5: 404,
    6: 400,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


def from_code(code: int, message: str) -> FastserveError:
    """The exception for a status code; `FastserveError` itself for codes without a class of their own."""
    cls = _BY_CODE.get(code)
    if cls is not None:
        return cls(message)
    error = FastserveError(message)
    error.code = code  # type: ignore[misc]
    return error
