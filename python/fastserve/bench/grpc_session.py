"""gRPC over HTTP/2: many unary calls at a time on a connection (RFC 9113, and gRPC's PROTOCOL-HTTP2.md).

Own code rather than grpcio: a call costs about a tenth, so that one process can load a fast server. It reads frames,
flow control and status; the reply's tensors are counted and dropped.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from fastserve.bench.hpack import DEFAULT_TABLE_BYTES, Headers, HpackError, decode, request_blocks
from fastserve.bench.session import INTERNAL, UNAVAILABLE, Done, Payload, Session
from fastserve.client.failure import http_code

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_TABLE_SIZE, _ENABLE_PUSH, _MAX_STREAMS, _INITIAL_WINDOW, _MAX_FRAME = 1, 2, 3, 4, 5
_FRAME = struct.Struct(">HBBBI")  # length (16 + 8 bits), type, flags, stream
_WINDOW = (1 << 31) - 1
_WINDOW_REFILL = 1 << 29
_DEFAULT_WINDOW = 65_535
_LAST_STREAM = (1 << 31) - 3
_MAX_STREAMS_OF_OURS = 1 << 16  # where the server states no limit
_CANCEL = 8
_CODE_OF_RESET = {7: UNAVAILABLE, 8: 1, 11: 8, 12: 7}  # gRPC's table; everything else INTERNAL


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class _Unsent:
    """The rest of a message that flow control holds back."""

    def __init__(self, rest: memoryview, window: int) -> None:
        self.rest = rest
        self.window = window


class GrpcSession(Session):
    """`fields`: the request's header fields without :method and :scheme. Nothing is sent before the server's SETTINGS."""

    def __init__(self, scheme: str, fields: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 0, _ENABLE_PUSH, 0, _INITIAL_WINDOW, _WINDOW)
        window = struct.pack(">I", _WINDOW - _DEFAULT_WINDOW)
        self.out = [PREFACE, frame(_SETTINGS, 0, 0, settings), frame(_WINDOW_UPDATE, 0, 0, window)]
        self._scheme, self._fields = scheme, fields
        self._blocks: tuple[bytes, bytes] | None = None  # None: no SETTINGS yet
        self._buffer = b""
        self._tags: dict[int, Any] = {}  # stream -> tag, in the order of sending
        self._early: dict[int, Headers] = {}  # stream -> its first headers, where they say something
        self._next_stream = 1
        self._max_streams = _MAX_STREAMS_OF_OURS
        self._max_frame_bytes = 16_384
        self._initial_window = _DEFAULT_WINDOW
        self._table_bytes = DEFAULT_TABLE_BYTES
        self._send_window = _DEFAULT_WINDOW
        self._unsent: dict[int, _Unsent] = {}
        self._turns: deque[int] = deque()  # streams with unsent data
        self._consumed = 0
        self._block: tuple[int, int, bytes] | None = (
            None  # stream, flags, so far: a header block that continues
        )

    @property
    def room(self) -> int:
        return 0 if self._blocks is None or self.closing else self._max_streams - len(self._tags)

    @property
    def in_flight(self) -> int:
        return len(self._tags)

    def send(self, tag: Any, payload: Payload) -> None:
        assert self._blocks is not None
        stream = self._next_stream
        self._next_stream = stream + 2
        self._tags[stream] = tag
        if stream >= _LAST_STREAM:
            self.closing = True
        first, later = self._blocks
        block = first if stream == 1 else later
        content = payload.content
        size = len(content)
        head = frame(_HEADERS, _END_HEADERS, stream, block)
        if not self._unsent and size <= min(self._max_frame_bytes, self._send_window, self._initial_window):
            self._send_window -= size
            self.out.append(head)
            self.out.append(_FRAME.pack(size >> 8, size & 0xFF, _DATA, _END_STREAM, stream))
            self.out.append(content)
            return
        self.out.append(head)
        self._unsent[stream] = _Unsent(memoryview(content), self._initial_window)
        self._turns.append(stream)
        self._flush()

    def _flush(self) -> None:
        """Sends what the windows allow, a frame of each stream in turn."""
        for _ in range(len(self._turns)):
            if self._send_window <= 0:
                return
            stream = self._turns.popleft()
            unsent = self._unsent.get(stream)
            if unsent is None:  # reset meanwhile
                continue
            while unsent.window > 0 and self._send_window > 0 and len(unsent.rest):
                size = min(unsent.window, self._send_window, self._max_frame_bytes, len(unsent.rest))
                ends = size == len(unsent.rest)
                self.out.append(frame(_DATA, _END_STREAM if ends else 0, stream, bytes(unsent.rest[:size])))
                unsent.rest = unsent.rest[size:]
                unsent.window -= size
                self._send_window -= size
            if len(unsent.rest):
                self._turns.append(stream)
            else:
                del self._unsent[stream]

    def feed(self, data: bytes) -> list[Done]:
        if not data:
            return self._all_lost("the server closed the connection")
        self.received_bytes += len(data)
        buffer = self._buffer + data if self._buffer else data
        at, size, done = 0, len(buffer), []
        unpack = _FRAME.unpack_from
        try:
            while size - at >= 9:
                high, low, kind, flags, stream = unpack(buffer, at)
                end = at + 9 + (high << 8 | low)
                if end > size:
                    break
                if kind == _DATA:
                    self._consumed += end - at - 9
                    if flags & _END_STREAM:
                        done += self._ended(stream & _WINDOW, ())
                elif kind == _HEADERS and flags & 0x2C == _END_HEADERS and self._block is None:
                    block = buffer[at + 9 : end]
                    done += self._on_headers(stream & _WINDOW, flags, block)
                else:
                    done += self._on_other(kind, flags, stream & _WINDOW, buffer[at + 9 : end])
                at = end
        except (HpackError, struct.error, IndexError) as error:
            return done + self._all_lost(f"the server broke HTTP/2: {error}")
        self._buffer = buffer[at:]
        if self._consumed >= _WINDOW_REFILL:
            self.out.append(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._consumed)))
            self._consumed = 0
        return done

    def _on_headers(self, stream: int, flags: int, block: bytes) -> list[Done]:
        headers = decode(block)
        if flags & _END_STREAM:
            return self._ended(stream, headers)
        if (":status", "200") not in headers:
            self._early[stream] = headers
        return []

    def _ended(self, stream: int, trailers: Headers) -> list[Done]:
        tag = self._forget(stream)
        if tag is None:
            return []
        early = self._early.pop(stream, ())
        fields = dict(early + trailers)
        if "grpc-status" in fields:
            code = fields["grpc-status"]
            number = int(code) if code.isdecimal() else 2
            return [Done(tag, number, unquote(fields.get("grpc-message", "")) if number else "")]
        status = fields.get(":status", "200")
        if status != "200" and status.isdecimal():
            return [Done(tag, http_code(int(status)), f"HTTP {status}: not a gRPC server")]
        return [Done(tag, INTERNAL, "the reply ended without a grpc-status")]

    def _forget(self, stream: int) -> Any:
        self._unsent.pop(stream, None)
        return self._tags.pop(stream, None)

    def _on_other(self, kind: int, flags: int, stream: int, payload: bytes) -> list[Done]:
        if self._block is not None and kind != _CONTINUATION:
            return self._all_lost("the server broke HTTP/2: a header block was not continued")
        if kind == _HEADERS:
            return self._on_block(stream, flags, _unpadded(flags, payload))
        if kind == _CONTINUATION and self._block is not None:
            begun_on, begun_flags, begun = self._block
            self._block = None
            return self._on_block(begun_on, begun_flags | flags & _END_HEADERS, begun + payload)
        if kind == _SETTINGS and not flags & _ACK:
            self._on_settings(payload)
        elif kind == _WINDOW_UPDATE:
            self._on_window(stream, struct.unpack(">I", payload)[0] & _WINDOW)
        elif kind == _PING and not flags & _ACK:
            self.out.append(frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            return self._on_reset(stream, struct.unpack(">I", payload)[0])
        elif kind == _GOAWAY:
            return self._on_goaway(struct.unpack_from(">I", payload)[0] & _WINDOW)
        return []

    def _on_block(self, stream: int, flags: int, block: bytes) -> list[Done]:
        if flags & _END_HEADERS:
            return self._on_headers(stream, flags, block)
        self._block = (stream, flags & _END_STREAM, block)
        return []

    def _on_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _MAX_STREAMS:
                self._max_streams = min(value, _MAX_STREAMS_OF_OURS)
            elif name == _MAX_FRAME:
                self._max_frame_bytes = value
            elif name == _TABLE_SIZE:
                self._table_bytes = value
            elif name == _INITIAL_WINDOW:
                for unsent in self._unsent.values():
                    unsent.window += value - self._initial_window
                self._initial_window = value
        self.out.append(frame(_SETTINGS, _ACK, 0, b""))
        if self._blocks is None:
            self._blocks = request_blocks(self._scheme, self._fields, self._table_bytes)
        self._flush()

    def _on_window(self, stream: int, more: int) -> None:
        if stream == 0:
            self._send_window += more
        elif stream in self._unsent:
            self._unsent[stream].window += more
        self._flush()

    def _on_reset(self, stream: int, error: int) -> list[Done]:
        tag = self._forget(stream)
        if tag is None:
            return []
        return [Done(tag, _CODE_OF_RESET.get(error, INTERNAL), f"RST_STREAM with error {error}")]

    def _on_goaway(self, last_stream: int) -> list[Done]:
        self.closing = True
        refused = [stream for stream in self._tags if stream > last_stream]
        return [
            Done(self._forget(stream), UNAVAILABLE, "GOAWAY before it was processed") for stream in refused
        ]

    def _all_lost(self, reason: str) -> list[Done]:
        self.closing = True
        done = [Done(tag, UNAVAILABLE, reason) for tag in self._tags.values()]
        self._tags.clear()
        self._unsent.clear()
        return done

    def oldest(self) -> Any:
        return next(iter(self._tags.values()), None)

    def cancel_oldest(self) -> None:
        stream = next(iter(self._tags))
        self._forget(stream)
        self.out.append(frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))


def _unpadded(flags: int, payload: bytes) -> bytes:
    """HEADERS without padding and priority."""
    begin = 1 if flags & _PADDED else 0
    end = len(payload) - (payload[0] if begin else 0)
    return payload[begin + (5 if flags & _PRIORITY else 0) : end]


def message_payload(message: bytes) -> Payload:
    """With gRPC's prefix: not compressed, length."""
    return Payload(struct.pack(">BI", 0, len(message)) + message)
