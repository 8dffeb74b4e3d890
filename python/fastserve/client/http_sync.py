"""HTTP/1.1 over blocking sockets: a pool of kept-alive connections. Any thread may call; a connection serves one
request at a time."""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from fastserve.client.calls import Call, HttpRequest
from fastserve.client.failure import AttemptFailed, of_connection, of_timeout
from fastserve.client.http11 import HttpResponse, ProtocolError, ResponseParser
from fastserve.client.http_wire import answer, of_protocol, request_pieces
from fastserve.client.retry import Fate
from fastserve.client.settings import IDLE_CONNECTION_S, Settings

T = TypeVar("T")
_RECEIVE_BYTES = 256 << 10


class _Connection:
    """One socket. Errors of its methods: OSError, TimeoutError, ProtocolError."""

    def __init__(self, settings: Settings, context: ssl.SSLContext | None, deadline: float | None) -> None:
        self._max_body_bytes = settings.max_message_bytes
        address = settings.address
        if address.unix_path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(_left(deadline))
            try:
                self._socket.connect(address.unix_path)
            except BaseException:
                self._socket.close()
                raise
        else:
            self._socket = socket.create_connection((address.host, address.port), _left(deadline))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            plain = self._socket
            try:
                self._socket = context.wrap_socket(
                    plain, server_hostname=settings.tls.server_name or address.host
                )
            except BaseException:
                plain.close()
                raise
        self.idle_since = 0.0
        self.reusable = False

    @property
    def is_fresh(self) -> bool:
        """Nothing has arrived on the idle connection: bytes or its end would mean that the server is done with it."""
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        return not ready.poll(0)

    def exchange(self, pieces: list[bytes | memoryview], deadline: float | None) -> HttpResponse:
        """Raises AttemptFailed-free errors; `sent_whole` tells how far it came."""
        self.sent_whole = False
        self.reusable = False
        parser = ResponseParser(self._max_body_bytes)
        try:
            for piece in pieces:
                self._socket.settimeout(_left(deadline))
                self._socket.sendall(piece)
            self.sent_whole = True
        except (BrokenPipeError, ConnectionResetError):
            # A server that refuses a large body answers and closes before it has read all of it.
            return self._receive(parser, deadline)
        return self._receive(parser, deadline)

    def _receive(self, parser: ResponseParser, deadline: float | None) -> HttpResponse:
        whole = False
        while not whole:
            self._socket.settimeout(_left(deadline))
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data and not parser.eof():
                raise ConnectionResetError(None, "the server closed the connection without an answer")
            whole = parser.feed(data) if data else True
        self.reusable = parser.reusable and self.sent_whole
        return parser.take()

    def close(self) -> None:
        self._socket.close()


def _left(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class HttpTransport:
    """`call` makes one attempt: connect if need be, send, receive."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = settings.tls.context() if settings.address.tls else None
        self._idle: list[_Connection] = []  # the latest used at the end: the others may grow old and go
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(settings.max_connections)
        self._closed = False

    def call(self, call: Call[T], timeout: float | None, deadline: float | None) -> T:
        return answer(call, self.exchange(call.http(), timeout, deadline))

    def exchange(self, request: HttpRequest, timeout: float | None, deadline: float | None) -> HttpResponse:
        where = str(self._settings.address)
        pieces = request_pieces(request, self._settings.address, self._settings.headers)
        with self._connection(where, timeout, deadline) as connection:
            try:
                return connection.exchange(pieces, deadline)
            except TimeoutError:
                raise of_timeout(where, timeout) from None
            except ProtocolError as error:
                raise of_protocol(where, error) from None
            except OSError as error:
                fate = Fate.MAY_HAVE_RUN if connection.sent_whole else Fate.NOT_PROCESSED
                raise of_connection(where, error, fate) from None

    @contextmanager
    def _connection(self, where: str, timeout: float | None, deadline: float | None) -> Iterator[_Connection]:
        wait = -1 if deadline is None else max(0.0, deadline - time.monotonic())
        if not self._room.acquire(timeout=wait):
            raise of_timeout(f"{where}: all {self._settings.max_connections} connections are busy", timeout)
        try:
            connection = self._take_idle() or self._connect(where, timeout, deadline)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._room.release()

    def _connect(self, where: str, timeout: float | None, deadline: float | None) -> _Connection:
        try:
            return _Connection(self._settings, self._context, deadline)
        except TimeoutError:
            failed = of_timeout(f"{where}: connecting", timeout)
            raise AttemptFailed(failed.error, Fate.NOT_PROCESSED) from None
        except OSError as error:
            raise of_connection(where, error, Fate.NOT_PROCESSED) from None

    def _take_idle(self) -> _Connection | None:
        oldest_allowed = time.monotonic() - IDLE_CONNECTION_S
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.idle_since > oldest_allowed and connection.is_fresh:
                return connection
            connection.close()

    def _give_back(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            if connection.reusable and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
