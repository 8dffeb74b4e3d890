"""HTTP/1.1: one request at a time on a connection."""

from __future__ import annotations

from typing import Any

from fastserve.bench.session import UNAVAILABLE, Done, Payload, Session
from fastserve.client.failure import error_text, http_code
from fastserve.client.http11 import ProtocolError, ResponseParser


class RestSession(Session):
    def __init__(self, max_body_bytes: int) -> None:
        super().__init__()
        self._parser = ResponseParser(max_body_bytes)
        self._tag: Any = None

    @property
    def room(self) -> int:
        return 0 if self._tag is not None or self.closing else 1

    @property
    def in_flight(self) -> int:
        return 0 if self._tag is None else 1

    def send(self, tag: Any, payload: Payload) -> None:
        self._tag = tag
        self.out.append(payload.content)

    def feed(self, data: bytes) -> list[Done]:
        self.received_bytes += len(data)
        try:
            if not (self._parser.feed(data) if data else self._parser.eof()):
                return self._lost("the server closed the connection") if not data else []
        except ProtocolError as error:
            return self._lost(str(error))
        self.closing = self.closing or not data or not self._parser.reusable
        response = self._parser.take()
        tag, self._tag = self._tag, None
        if tag is None:  # bytes that nobody asked for
            self.closing = True
            return []
        if response.status == 200:
            return [Done(tag, 0)]
        return [Done(tag, http_code(response.status), error_text(response))]

    def _lost(self, reason: str) -> list[Done]:
        self.closing = True
        tag, self._tag = self._tag, None
        return [] if tag is None else [Done(tag, UNAVAILABLE, reason)]

    def oldest(self) -> Any:
        return self._tag

    def cancel_oldest(self) -> None:
        self._tag = None
        self.closing = True  # the only way that HTTP/1.1 has
