"""One gRPC call again and again over a plain socket, its frames made beforehand: what is left is the server's, the kernel's and
one system call each way.

grpcio's own client takes most of a millisecond for a message of 600 KB (it copies it several times and hands it from thread to
thread), which says nothing about the server. This one speaks just enough HTTP/2 (RFC 9113) and HPACK (RFC 7541, literals only)
for calls one after the other; it is no client to use.
"""

from __future__ import annotations

import socket
import struct

import numpy as np

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
INITIAL_WINDOW = 4
HEAD_BYTES = 9
FRAME_BYTES = 16384
OWN_WINDOW_BYTES = 1 << 30  # so that nothing has to be given back


class LeanGrpc:
    """`message`: serialized, without gRPC's prefix; every call sends it. Errors: RuntimeError with what the server said."""

    def __init__(self, address: str, path: str, message: bytes) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._socket.settimeout(30)
        self._socket.connect((host, int(port)))
        self._received = bytearray()
        self._stream = -1
        self._windows = {"connection": 65535, "stream": 65535}
        settings = struct.pack("!HI", INITIAL_WINDOW, OWN_WINDOW_BYTES)
        self._socket.sendall(
            PREFACE
            + _frame(SETTINGS, 0, 0, settings)
            + _frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", OWN_WINDOW_BYTES))
        )
        framed = struct.pack("!BI", 0, len(message)) + message
        self._bytes = len(framed)
        self._call, places = _prepared(_header_block(path, address), framed)
        self._numbers, self._places = np.frombuffer(self._call, dtype=np.uint8), places
        while min(self._windows.values()) < self._bytes:  # the server's settings, and what it opens
            self._take_frame()

    def call(self) -> bytes:
        """The answer's message with gRPC's prefix."""
        self._stream += 2
        self._numbers[self._places] = np.frombuffer(struct.pack("!I", self._stream), dtype=np.uint8)
        while self._windows["connection"] < self._bytes:
            self._take_frame()
        self._windows["connection"] -= self._bytes
        self._socket.sendall(self._call)
        answer = b""
        while True:
            kind, flags, stream, payload = self._take_frame()
            if stream != self._stream:
                continue
            if kind == DATA:
                answer += payload
            if flags & END_STREAM and kind in (DATA, HEADERS):
                if not answer:
                    raise RuntimeError("the call was refused (see the server's log)")
                return answer

    def close(self) -> None:
        self._socket.close()

    def _take_frame(self) -> tuple[int, int, int, bytes]:
        head = self._take(HEAD_BYTES)
        kind, flags, stream = head[3], head[4], struct.unpack("!I", head[5:9])[0]
        payload = self._take(int.from_bytes(head[:3], "big"))
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from("!HI", payload, at)
                if name == INITIAL_WINDOW:
                    self._windows["stream"] = value
            self._socket.sendall(_frame(SETTINGS, ACK, 0, b""))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._windows["connection"] += struct.unpack("!I", payload)[0]
        elif kind == PING and not flags & ACK:
            self._socket.sendall(_frame(PING, ACK, 0, payload))
        elif kind in (GOAWAY, RST_STREAM):
            raise RuntimeError(f"the server ended the call: {payload!r}")
        return kind, flags, stream, payload

    def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            got = self._socket.recv(1 << 16)
            if not got:
                raise RuntimeError("the server closed the connection")
            self._received += got
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def _header_block(path: str, authority: str) -> bytes:
    """Literals without indexing, so that every block is the same."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        bytes((0, len(name))) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in headers.items()
    )


def _prepared(block: bytes, framed: bytes) -> tuple[bytearray, np.ndarray]:
    """All frames of a call, and where their stream numbers stand: [frames, 4]."""
    pieces = [_frame(HEADERS, END_HEADERS, 0, block)]
    for at in range(0, len(framed), FRAME_BYTES):
        last = END_STREAM if at + FRAME_BYTES >= len(framed) else 0
        pieces.append(_frame(DATA, last, 0, framed[at : at + FRAME_BYTES]))
    begins = np.cumsum([0] + [len(piece) for piece in pieces[:-1]])
    return bytearray(b"".join(pieces)), begins[:, None] + np.arange(5, 9)
