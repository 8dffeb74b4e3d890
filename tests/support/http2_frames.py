"""HTTP/2 frame by frame (RFC 9113) and HPACK by hand (RFC 7541), for what no client library would send.

Peer is a client that owns one raw connection: it sends bytes as they are and reads frames, and says what the server did
about them: an answer, a stream error, a connection error, nothing.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

import hpack
from wire import INFER, Infer, fp32, message

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TIMEOUT_S = 20.0
HEAD_BYTES = 9
DEFAULT_FRAME_BYTES = 16384  # SETTINGS_MAX_FRAME_SIZE at first, and ours for ever
DEFAULT_WINDOW_BYTES = 65535
TOP = (1 << 31) - 1
_SHOWN = 20  # frames in a message


class Type(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Code(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9


END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

Fields = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Frame:
    type: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        at = 4 if self.type == Type.GOAWAY else 0
        return int(struct.unpack_from(">I", self.payload, at)[0])

    @property
    def reason(self) -> bytes:
        """GOAWAY's debug data."""
        return self.payload[8:]


# --- frames


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """`length`: written instead of the true one."""
    size = len(payload) if length is None else length
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def data(stream: int, content: bytes = b"", *, end: bool = False, padding: int | None = None) -> bytes:
    if padding is None:
        return frame(Type.DATA, END_STREAM * end, stream, content)
    padded = bytes([padding]) + content + bytes(padding)
    return frame(Type.DATA, END_STREAM * end | PADDED, stream, padded)


def headers(
    stream: int,
    block: bytes,
    *,
    end: bool = False,
    last: bool = True,
    padding: int | None = None,
    priority: bytes = b"",
) -> bytes:
    """`last`: no CONTINUATION follows. `priority`: the five bytes of dependency and weight."""
    flags = END_STREAM * end | END_HEADERS * last | PRIORITY * bool(priority)
    payload = priority + block
    if padding is not None:
        flags |= PADDED
        payload = bytes([padding]) + payload + bytes(padding)
    return frame(Type.HEADERS, flags, stream, payload)


def continuation(stream: int, block: bytes, *, last: bool = True) -> bytes:
    return frame(Type.CONTINUATION, END_HEADERS * last, stream, block)


def settings(*values: tuple[int, int], ack: bool = False) -> bytes:
    return frame(Type.SETTINGS, ACK * ack, 0, b"".join(struct.pack(">HI", k, v) for k, v in values))


def window_update(stream: int, increment: int) -> bytes:
    return frame(Type.WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(Type.RST_STREAM, 0, stream, struct.pack(">I", code))


def ping(opaque: bytes = b"12345678", *, ack: bool = False) -> bytes:
    return frame(Type.PING, ACK * ack, 0, opaque)


def goaway(last_stream: int = 0, code: int = 0, reason: bytes = b"", stream: int = 0) -> bytes:
    return frame(Type.GOAWAY, 0, stream, struct.pack(">II", last_stream, code) + reason)


def dependency(on: int, weight: int = 15, *, exclusive: bool = False) -> bytes:
    return struct.pack(">IB", on | exclusive << 31, weight)


def priority(stream: int, on: int) -> bytes:
    return frame(Type.PRIORITY, 0, stream, dependency(on))


# --- HPACK


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """RFC 7541 section 5.1; `first`: the bits in front of the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def string(text: bytes, *, huffman: bool = False) -> bytes:
    """`huffman`: `text` is Huffman-coded already."""
    return integer(len(text), 7, 0x80 * huffman) + text


def indexed(index: int) -> bytes:
    return integer(index, 7, 0x80)


def literal(name: bytes, value: bytes, *, store: bool = False) -> bytes:
    return (b"\x40" if store else b"\x00") + string(name) + string(value)


def table_size(bytes_: int) -> bytes:
    return integer(bytes_, 5, 0x20)


def block(fields: Fields) -> bytes:
    return b"".join(literal(name, value) for name, value in fields)


def without(fields: Fields, name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in fields if field[0] != name]


def replaced(fields: Fields, name: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    return [(n, value if n == name else v) for n, v in fields]


# --- what the server made of it


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """200, and of a gRPC answer grpc-status 0."""
        return self.status == 200 and {**self.headers, **self.trailers}.get("grpc-status", "0") == "0"


class Peer:
    """One connection. Reads nothing by itself; every `until` looks through what came so far and then reads on."""

    def __init__(self, address: str, hello: bytes | None = PREFACE + settings()) -> None:
        """`hello` None: nothing is sent and nothing read; otherwise the server's SETTINGS are waited for."""
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.frames: list[Frame] = []
        self.is_closed = False  # by the server
        self._buffer = bytearray()
        self._pings = 0
        self.decoder = hpack.Decoder(max_header_list_size=1 << 24)
        self._blocks: dict[int, list[dict[str, str]]] = {}  # decoded header sections, per stream
        if hello is not None:
            self.send(hello)
            self.until(lambda f: f.type == Type.SETTINGS and not f.flags & ACK, "SETTINGS")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Errors are not raised: a server that has ended the connection says so in what it sent."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(b"".join(pieces))

    # --- reading

    def read(self, timeout_s: float = TIMEOUT_S) -> bool:
        """At least one frame, or the end: False."""
        until = time.monotonic() + timeout_s
        known = len(self.frames)
        while len(self.frames) == known and not self.is_closed:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            try:
                piece = self.socket.recv(1 << 18)
            except ConnectionError:
                piece = b""
            self.is_closed = not piece
            self._buffer += piece
            self._parse()
        return len(self.frames) > known

    def _parse(self) -> None:
        at = 0
        while len(self._buffer) - at >= HEAD_BYTES:
            size = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) - at < HEAD_BYTES + size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", self._buffer, at + 3)
            payload = bytes(self._buffer[at + HEAD_BYTES : at + HEAD_BYTES + size])
            self._keep(Frame(kind, flags, stream, payload))
            at += HEAD_BYTES + size
        del self._buffer[:at]

    def _keep(self, received: Frame) -> None:
        if received.type == Type.HEADERS:
            assert received.flags & END_HEADERS, "our server needs no CONTINUATION"
            decoded = {str(n): str(v) for n, v in self.decoder.decode(received.payload)}
            self._blocks.setdefault(received.stream, []).append(decoded)
        self.frames.append(received)

    def until(self, wanted: Callable[[Frame], bool], what: str) -> Frame:
        seen = 0
        while True:
            for each in self.frames[seen:]:
                if wanted(each):
                    return each
            seen = len(self.frames)
            try:
                more = self.read()
            except TimeoutError:
                raise AssertionError(f"no {what} in {TIMEOUT_S:.0f} s, only {self.story()}") from None
            if not more:
                raise AssertionError(f"the server closed without {what}: {self.story()}")

    def story(self) -> str:
        """What came so far, for messages of assertions."""

        def short(f: Frame) -> str:
            code = f" {Code(f.code).name}" if f.type in (Type.RST_STREAM, Type.GOAWAY) else ""
            reason = f" {f.reason!r}" if f.type == Type.GOAWAY else ""
            return f"{Type(f.type).name}[{f.stream}]{code}{reason}" + "+END" * self.ends(f)

        left_out = [f"({len(self.frames) - _SHOWN} more before)"] * (len(self.frames) > _SHOWN)
        return ", ".join(left_out + [short(f) for f in self.frames[-_SHOWN:]]) or "nothing"

    @staticmethod
    def ends(f: Frame) -> bool:
        return f.type in (Type.DATA, Type.HEADERS) and bool(f.flags & END_STREAM)

    # --- what must happen

    def round_trip(self) -> None:
        """Everything that was sent is done with, and what it causes has come.

        Two PINGs, because an ACK may overtake other frames that are ready (and does: nghttp2 sends it first).
        """
        for _ in range(2):
            self._pings += 1
            opaque = struct.pack(">Q", self._pings)
            self.send(ping(opaque))
            self.until(lambda f, o=opaque: f.type == Type.PING and f.payload == o, "PING ACK")  # type: ignore[misc]

    def expect_connection_error(self, *codes: int, reason: bytes = b"") -> Frame:
        """GOAWAY with one of `codes`, and then the end of the connection."""
        ended = self.until(lambda f: f.type == Type.GOAWAY, "GOAWAY")
        assert ended.code in codes, f"{Code(ended.code).name} {ended.reason!r}"
        assert reason in ended.reason, ended.reason
        self.expect_end()
        return ended

    def expect_end(self) -> None:
        """The server closes the connection."""
        try:
            while self.read():
                pass
        except TimeoutError:
            raise AssertionError(f"the connection stays open: {self.story()}") from None

    def expect_stream_error(self, stream: int, *codes: int) -> None:
        """RST_STREAM with one of `codes`; the connection goes on."""
        reset = self.until(
            lambda f: (f.type == Type.RST_STREAM and f.stream == stream) or f.type == Type.GOAWAY,
            f"RST_STREAM of {stream}",
        )
        assert reset.type == Type.RST_STREAM, self.story()
        assert reset.code in codes, Code(reset.code).name
        self.round_trip()
        assert not any(f.type == Type.GOAWAY for f in self.frames), self.story()

    def expect_error(self, stream: int, *codes: int) -> None:
        """A stream error, or a connection error with the same code (RFC 9113 section 5.4.1: "an endpoint MAY choose to
        treat a stream error as a connection error")."""
        found = self.until(
            lambda f: (f.type == Type.RST_STREAM and f.stream == stream) or f.type == Type.GOAWAY,
            f"RST_STREAM of {stream} or GOAWAY",
        )
        assert found.code in codes, f"{Code(found.code).name}: {self.story()}"

    def expect_nothing(self) -> None:
        """What was sent is taken or ignored: no stream and no connection is ended by it."""
        self.round_trip()
        assert not any(f.type in (Type.RST_STREAM, Type.GOAWAY) for f in self.frames), self.story()

    def answer(self, stream: int) -> Answer:
        """The whole answer of a stream."""
        self.until(
            lambda f: (
                (f.stream == stream and (self.ends(f) or f.type == Type.RST_STREAM)) or f.type == Type.GOAWAY
            ),
            f"answer on {stream}",
        )
        mine = [f for f in self.frames if f.stream == stream]
        assert any(self.ends(f) for f in mine), self.story()
        sections = self._blocks[stream]
        body = b"".join(f.payload for f in mine if f.type == Type.DATA)
        trailers = sections[1] if len(sections) > 1 else {}
        return Answer(int(sections[0][":status"]), sections[0], body, trailers)

    def expect_answer(self, stream: int) -> Answer:
        found = self.answer(stream)
        assert found.is_good, found
        return found

    def sent_settings(self) -> dict[int, int]:
        """The server's own, as it announced them."""
        mine = [f for f in self.frames if f.type == Type.SETTINGS and not f.flags & ACK]
        return {k: v for f in mine for k, v in struct.iter_unpack(">HI", f.payload)}


# --- requests of our two ports


@dataclass(frozen=True)
class Target:
    """A port, a request that it answers with 200 (and grpc-status 0), and one whose answer takes SLOW_S."""

    name: str
    address: str
    fields: tuple[tuple[bytes, bytes], ...]
    content: bytes
    slow_path: bytes
    slow_content: bytes
    large_path: bytes
    large_content: bytes  # the answer is as large as this, roughly

    @property
    def head(self) -> bytes:
        return block(self.fields)

    def request(self, stream: int, fields: Fields | None = None, *, content: bytes | None = None) -> bytes:
        """HEADERS and DATA."""
        body = self.content if content is None else content
        return headers(stream, block(self.fields if fields is None else fields)) + data(
            stream, body, end=True
        )

    def slow(self, stream: int) -> bytes:
        return self.request(
            stream, replaced(self.fields, b":path", self.slow_path), content=self.slow_content
        )

    def large(self, stream: int) -> bytes:
        """In several DATA frames; fits our first window."""
        step = DEFAULT_FRAME_BYTES
        pieces = [self.large_content[at : at + step] for at in range(0, len(self.large_content), step)]
        head = headers(stream, block(replaced(self.fields, b":path", self.large_path)))
        return head + b"".join(data(stream, piece, end=piece is pieces[-1]) for piece in pieces)

    def open(self, stream: int) -> bytes:
        """HEADERS alone: the stream stays open."""
        return headers(stream, self.head)

    def peer(self, *extra: tuple[int, int]) -> Peer:
        """A connection past its preface, with these settings of ours."""
        return Peer(self.address, PREFACE + settings(*extra))

    def serves(self) -> None:
        """A new connection and a good request on it."""
        with self.peer() as peer:
            peer.send(self.request(1))
            peer.expect_answer(1)


LARGE_SHAPE = (10, 1000)  # 40 KB as FP32


def grpc_target(address: str) -> Target:
    def framed(request: Infer) -> bytes:
        text: bytes = message(request).SerializeToString()
        return b"\0" + struct.pack(">I", len(text)) + text

    path = INFER.encode()
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    good, slow = (framed(Infer(model, (fp32("INPUT0", 1, 4),))) for model in ("batch_fp32", "slow"))
    large = framed(Infer("any_fp32", (fp32("INPUT0", *LARGE_SHAPE),)))
    return Target("grpc", address, fields, good, path, slow, path, large)


def rest_target(address: str) -> Target:
    def body(*shape: int) -> bytes:
        count = shape[0] * shape[1]
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": shape, "data": [1.5] * count}
        return json.dumps({"inputs": [tensor]}).encode()

    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/v2/models/batch_fp32/infer"),
        (b":authority", b"localhost"),
        (b"content-type", b"application/json"),
    )
    slow, large = b"/v2/models/slow/infer", b"/v2/models/any_fp32/infer"
    return Target("http", address, fields, body(1, 4), slow, body(1, 4), large, body(*LARGE_SHAPE))
