"""HTTP/1.1 over asyncio streams: a pool of kept-alive connections. One event loop."""

from __future__ import annotations

import asyncio
import time
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
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_body_bytes: int
    ) -> None:
        self._reader, self._writer = reader, writer
        self._max_body_bytes = max_body_bytes
        self.idle_since = 0.0
        self.reusable = False

    @property
    def is_fresh(self) -> bool:
        return not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, pieces: list[bytes | memoryview]) -> HttpResponse:
        self.reusable = False
        parser = ResponseParser(self._max_body_bytes)
        try:
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()
            sent_whole = True
        except (BrokenPipeError, ConnectionResetError):
            sent_whole = (
                False  # a server that refuses a large body answers and closes before it has read all of it
            )
        whole = False
        while not whole:
            data = await self._reader.read(_RECEIVE_BYTES)
            if not data and not parser.eof():
                raise ConnectionResetError(None, "the server closed the connection without an answer")
            whole = parser.feed(data) if data else True
        self.reusable = parser.reusable and sent_whole
        return parser.take()

    def close(self) -> None:
        self._writer.close()


class AsyncHttpTransport:
    """`call` makes one attempt: connect if need be, send, receive. A cancelled task closes its connection, by which the
    server hears of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = settings.tls.context() if settings.address.tls else None
        self._idle: list[_Connection] = []
        self._room = asyncio.Semaphore(settings.max_connections)
        self._closed = False

    async def call(self, call: Call[T], timeout: float | None, deadline: float | None) -> T:
        return answer(call, await self.exchange(call.http(), timeout, deadline))

    async def exchange(
        self, request: HttpRequest, timeout: float | None, deadline: float | None
    ) -> HttpResponse:
        where = str(self._settings.address)
        pieces = request_pieces(request, self._settings.address, self._settings.headers)
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()), self._room:
                connection = self._take_idle() or await self._connect(where)
                try:
                    return await connection.exchange(pieces)
                finally:
                    self._give_back(connection)
        except TimeoutError:
            failed = of_timeout(where, timeout)
            raise failed if connection else AttemptFailed(failed.error, Fate.NOT_PROCESSED) from None
        except ProtocolError as error:
            raise of_protocol(where, error) from None
        except OSError as error:
            # What the event loop has taken over may have reached the server.
            raise of_connection(where, error, Fate.MAY_HAVE_RUN) from None

    async def _connect(self, where: str) -> _Connection:
        address = self._settings.address
        try:
            if address.unix_path:
                reader, writer = await asyncio.open_unix_connection(address.unix_path)
            else:
                name = (self._settings.tls.server_name or address.host) if self._context else None
                reader, writer = await asyncio.open_connection(
                    address.host, address.port, ssl=self._context, server_hostname=name
                )
        except TimeoutError:
            raise
        except OSError as error:
            raise of_connection(where, error, Fate.NOT_PROCESSED) from None
        return _Connection(reader, writer, self._settings.max_message_bytes)

    def _take_idle(self) -> _Connection | None:
        oldest_allowed = time.monotonic() - IDLE_CONNECTION_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest_allowed and connection.is_fresh:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        if connection.reusable and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # the transports close in the loop's next pass
