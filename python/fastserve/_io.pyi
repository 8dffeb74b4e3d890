"""Sockets under uvloop (csrc/bind/_io.pyx, Cython): one IoLoop owns the sessions, the completions and the hot path of its loop.

Everything here runs on the loop's thread. The hot methods (gRPC ModelInfer, REST infer) never reach Python: the protocol
objects feed bytes to the C++ session, responses are written to the socket from `on_wake`. Every other RPC and route arrives
as a cold call.
"""

import asyncio
from collections.abc import Callable, Sequence

from fastserve._core import Engine

class GrpcCall:
    """A cold gRPC call: one complete request message. Exactly one finish (reply does it)."""

    path: str  # "/inference.GRPCInferenceService/ServerLive"
    message: bytes
    metadata: list[tuple[str, bytes]]  # lower-case names, without pseudo headers
    timeout_seconds: float | None  # grpc-timeout
    cancelled: bool  # the client reset the stream or the connection went away
    on_cancel: Callable[[], None] | None
    def reply(self, message: bytes) -> None:
        """send + finish(OK), in one go."""

    def send(self, message: bytes) -> None: ...
    def finish(
        self, code: int = 0, message: str = "", trailers: Sequence[tuple[str, bytes]] = ()
    ) -> None: ...

class HttpCall:
    """A cold HTTP request with its complete body. Exactly one respond, or start + write* + end."""

    method: str
    target: str  # raw request target: path and query, percent-encoded
    headers: list[tuple[bytes, bytes]]  # lower-case names
    body: bytes
    peer: str
    cancelled: bool
    on_cancel: Callable[[], None] | None
    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None: ...
    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None: ...
    def write(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...

class IoStatistics:
    grpc_connections: int
    http_connections: int
    streams: int
    bytes_received: int
    bytes_sent: int
    requests_refused: dict[
        str, int
    ]  # by reason, before they reached a model: "malformed", "unknown_model", "queue_full", ...

class IoLoop:
    event_fd: int  # readable when responses are ready: loop.add_reader(io.event_fd, io.on_wake)
    def __init__(
        self,
        engine: Engine,
        *,
        on_grpc_call: Callable[[GrpcCall], None],
        on_http_call: Callable[[HttpCall], None],
        max_message_bytes: int = 64 << 20,
        max_streams: int = 1024,
        server_header: str = "",
    ) -> None: ...
    def on_wake(self) -> None: ...
    def grpc_protocol(self) -> asyncio.BufferedProtocol: ...
    def http_protocol(self) -> asyncio.BufferedProtocol: ...
    def shutdown(self) -> None:
        """GOAWAY to every gRPC session, Connection: close from now on over HTTP/1.1; admitted requests are answered."""

    def open_sessions(self) -> int: ...
    def tick(self) -> None:
        """Once a second: idle and header time-outs."""

    def statistics(self) -> IoStatistics: ...
    def close(self) -> None: ...
