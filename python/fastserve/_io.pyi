"""The drivers of the front end (csrc/bind/_io.pyx, Cython): IoLoop for sockets under uvloop, IoThreads for native threads.

The hot methods (gRPC ModelInfer, REST infer) never reach Python: bytes go to the C++ session, responses to the socket. Every
other RPC and route arrives as a cold call, on the asyncio loop's thread; calls are answered on that thread too.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

from fastserve._core import Engine

class GrpcCall:
    """A cold gRPC call: one complete request message, or a stream of them. Exactly one finish (reply does it)."""

    path: str  # "/inference.GRPCInferenceService/ServerLive"
    message: bytes
    metadata: list[tuple[str, bytes]]  # lower-case names, without pseudo headers
    timeout_seconds: float | None  # grpc-timeout
    peer: str  # "address:port"; "" over a Unix socket
    cancelled: bool  # the client reset the stream or the connection went away
    on_cancel: Callable[[], None] | None
    takes_messages: bool  # a stream of requests: `message` is empty, they come by `on_message`, to be set within on_grpc_call
    on_message: Callable[[bytes | None], None] | None  # None: the client has no more
    def took(self) -> None:
        """One message was dealt with. With 16 of them waiting, the client is held."""

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
    peer: str  # "address:port"; "" over a Unix socket
    secure: bool  # came over TLS
    cancelled: bool
    on_cancel: Callable[[], None] | None
    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None: ...
    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None: ...
    def write(self, chunk: bytes) -> None: ...
    def end(self) -> None: ...

class IoStatistics:
    """Of one I/O thread (IoThreads) or of the uvloop thread (IoLoop); since its start, unless said otherwise."""

    grpc_connections: int  # open now
    http_connections: int  # open now
    grpc_accepted: int  # connections
    http_accepted: int
    streams: int  # calls open now
    bytes_received: int
    bytes_sent: int
    longest_pass_seconds: (
        float  # of the last 10 s: as long may a socket have waited; 0.0 for IoLoop (see LoopLag)
    )
    tls_handshakes: int  # complete
    tls_truncated: int  # connections that ended without close_notify
    tls_failures: dict[str, int]  # by reason, every reason there
    requests_refused: dict[str, int]  # hot calls refused before they reached a model, by status code

class TlsFiles:
    """Certificates of a listener. Connections take what was loaded last when they open. Thread: any; reload beside itself not.

    Raises ValueError, `<file>: <reason>`; a reload that fails leaves the old certificates in use."""

    subject: str  # of the server's own certificate: "CN=models.example"
    sha256: str  # its fingerprint, lower-case hex
    not_before: int  # seconds since 1970
    not_after: int  # of the first certificate of the chain to expire
    def __init__(
        self,
        certificates: str | os.PathLike[str],
        key: str | os.PathLike[str],
        *,
        client_ca: str | os.PathLike[str] | None = None,  # clients must show a certificate of these
        min_version: str = "1.2",  # or "1.3"
        handshake_timeout_s: float = 10.0,
    ) -> None: ...
    def reload(self) -> None: ...

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
        max_stream_requests: int = 256,
        compress_answers: bool = False,
        client_streams: Sequence[str] = (),  # paths of cold gRPC methods that take a stream of requests
        tls_grpc: TlsFiles | None = None,
        tls_http: TlsFiles | None = None,
    ) -> None: ...
    def on_wake(self) -> None: ...
    def grpc_protocol(self) -> asyncio.BufferedProtocol: ...
    def http_protocol(self) -> asyncio.BufferedProtocol: ...
    def shutdown(self) -> None:
        """GOAWAY to every gRPC session, Connection: close from now on over HTTP/1.1; admitted requests are answered."""

    def open_sessions(self) -> int: ...
    def tick(self) -> None:
        """Once a second: idle and header time-outs."""

    def statistics(self) -> list[IoStatistics]: ...
    def close(self) -> None: ...

class IoThreads:
    """N epoll threads that own their sockets and never take the interpreter lock. The calls of `on_grpc_call` and
    `on_http_call` come on the asyncio loop's thread, from `on_wake`."""

    event_fd: int  # readable when cold calls are waiting: loop.add_reader(io.event_fd, io.on_wake)
    def __init__(
        self,
        engine: Engine,
        threads: int,
        *,
        on_grpc_call: Callable[[GrpcCall], None],
        on_http_call: Callable[[HttpCall], None],
        max_message_bytes: int = 64 << 20,
        max_streams: int = 1024,
        max_stream_requests: int = 256,
        compress_answers: bool = False,
        client_streams: Sequence[str] = (),  # paths of cold gRPC methods that take a stream of requests
        tls_grpc: TlsFiles | None = None,
        tls_http: TlsFiles | None = None,
    ) -> None: ...
    def listen_grpc(self, sock: socket.socket) -> None:
        """Accepts from a duplicate of this listening socket, until stop_listening."""

    def listen_http(self, sock: socket.socket) -> None: ...
    def stop_listening(self) -> None: ...
    def on_wake(self) -> None: ...
    def shutdown(self) -> None:
        """As IoLoop.shutdown."""

    def open_sessions(self) -> int: ...
    def statistics(self) -> list[IoStatistics]: ...
    def close(self) -> None:
        """Ends the threads and closes every connection. Blocks while the engine still works for one of them."""
