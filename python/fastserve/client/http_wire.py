"""The request head; what both HTTP transports do with an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from fastserve.client.address import Address
from fastserve.client.calls import Call, HttpRequest
from fastserve.client.failure import AttemptFailed, of_http
from fastserve.client.http11 import HttpResponse, ProtocolError
from fastserve.client.retry import Fate
from fastserve.errors import from_code

T = TypeVar("T")
JOINED_BYTES = 64 << 10  # below it a copy is cheaper than another system call


def request_pieces(
    request: HttpRequest, address: Address, headers: Mapping[str, str]
) -> list[bytes | memoryview]:
    """What to send, in order; small ones joined."""
    lines = [f"{request.method} {address.prefix}{request.path} HTTP/1.1", f"Host: {address.authority}"]
    lines += [f"{name}: {value}" for name, value in (*headers.items(), *request.headers)]
    if request.method != "GET":
        lines.append(f"Content-Length: {request.body_bytes}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if request.body_bytes <= JOINED_BYTES:
        return [b"".join([head, *request.parts])]
    return [head, *request.parts]


def answer(call: Call[T], response: HttpResponse) -> T:
    """The call's value. Raises AttemptFailed when the server says no."""
    if not call.accepts(response.status):
        raise of_http(response)
    return call.from_http(response)


def of_protocol(where: str, error: ProtocolError) -> AttemptFailed:
    """RESOURCE_EXHAUSTED for what is too large, else UNKNOWN."""
    return AttemptFailed(from_code(8 if error.too_large else 2, f"{where}: {error}"), Fate.MAY_HAVE_RUN)
