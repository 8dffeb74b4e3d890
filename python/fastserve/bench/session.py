"""What the driver asks of a connection's protocol. Sessions are pure: bytes in, bytes out, no clock.

A tag is the driver's: it comes back with the request's end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

UNAVAILABLE, INTERNAL = 14, 13


@dataclass(frozen=True)
class Payload:
    """One request, encoded once: what follows the protocol's own framing. HTTP: whole request; gRPC: message."""

    content: bytes


class Done(NamedTuple):
    tag: Any
    code: int  # gRPC's; 0 = OK
    message: str = ""


class Session(ABC):
    """`out` is what has to be written. After `closing`, no more is sent and the connection goes when it is idle."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.closing = False
        self.received_bytes = 0

    @property
    @abstractmethod
    def room(self) -> int:
        """Requests that may be sent now."""

    @property
    @abstractmethod
    def in_flight(self) -> int: ...

    @abstractmethod
    def send(self, tag: Any, payload: Payload) -> None:
        """Only with room."""

    @abstractmethod
    def feed(self, data: bytes) -> list[Done]:
        """What the connection delivered; b"" is its end, after which every request in flight has ended."""

    @abstractmethod
    def oldest(self) -> Any:
        """Tag of the request that was sent first; None without one."""

    @abstractmethod
    def cancel_oldest(self) -> None:
        """Gives it up; no Done comes for it."""
