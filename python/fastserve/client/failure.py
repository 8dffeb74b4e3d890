"""From what a transport or a server says to the exception that the caller gets. Pure.

The exceptions are those of fastserve.errors: `.code` (gRPC's number), `.message`, `.field` (the offending field as the
server names it).
"""

from __future__ import annotations

import json
import os
import ssl

from fastserve.client.http11 import HttpResponse
from fastserve.client.retry import Fate, fate_of_unavailable
from fastserve.errors import FastserveError, from_code

UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 2, 4, 8, 13, 14

# HTTP -> gRPC code, after Triton's table and, for the rest, the nearest in meaning.
_CODES = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    405: 12,
    406: 12,
    408: 4,
    409: 10,
    412: 9,
    413: 8,
    415: 3,
    422: 3,
    429: 8,
    431: 8,
    499: 1,
    500: 13,
    501: 12,
    502: 14,
    503: 14,
    504: 4,
}


class AttemptFailed(Exception):
    """One attempt of a call: the error for the caller, and what is known of the request."""

    def __init__(self, error: FastserveError, fate: Fate) -> None:
        super().__init__(error.message)
        self.error = error
        self.fate = fate


def of_status(code: int, message: str) -> AttemptFailed:
    """gRPC's status, whoever made it."""
    fate = fate_of_unavailable(message) if code == UNAVAILABLE else Fate.ANSWERED
    if code == DEADLINE_EXCEEDED:
        fate = Fate.MAY_HAVE_RUN
    return AttemptFailed(from_code(code, message), fate)


def of_http(response: HttpResponse) -> AttemptFailed:
    code = http_code(response.status)
    message = error_text(response)
    failed = of_status(code, message)
    failed.error.http_status = response.status
    return failed


def http_code(status: int) -> int:
    """gRPC's code for an HTTP status that is not a success."""
    return _CODES.get(status) or (3 if 400 <= status < 500 else INTERNAL if status >= 500 else UNKNOWN)


def error_text(response: HttpResponse) -> str:
    """{"error": text} as the Open Inference Protocol has it, {"detail": text} as FastAPI does, else the body's start."""
    try:
        document = json.loads(response.body)
        return str(document["error"] if "error" in document else document["detail"])
    except (ValueError, KeyError, TypeError):
        text = response.body[:200].decode("utf-8", "replace").strip()
        return text or f"HTTP {response.status} {response.head.reason}".strip()


def of_connection(where: str, problem: BaseException, fate: Fate) -> AttemptFailed:
    """The connection could not be made, or broke."""
    if isinstance(problem, OSError) and not isinstance(problem, ssl.SSLError) and (problem.errno or 0) > 0:
        reason = os.strerror(problem.errno or 0)  # asyncio has words of its own
    else:
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return AttemptFailed(from_code(UNAVAILABLE, f"{where}: {reason}"), fate)


def of_timeout(where: str, seconds: float | None) -> AttemptFailed:
    allowed = "" if seconds is None else f" within {seconds:g} s"
    return AttemptFailed(from_code(DEADLINE_EXCEEDED, f"{where}: no answer{allowed}"), Fate.MAY_HAVE_RUN)
