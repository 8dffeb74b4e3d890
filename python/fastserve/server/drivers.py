"""What moves the bytes of the gRPC and REST sockets: the uvloop loop itself, or native I/O threads.

Both answer inference in C++ and hand every other call to the two callbacks, on the loop's thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from fastserve import _core, config
from fastserve._io import GrpcCall, HttpCall, IoLoop, IoStatistics, IoThreads
from fastserve.server.listeners import BACKLOG
from fastserve.server.tls import Certificates

OnGrpcCall = Callable[[GrpcCall], None]
OnHttpCall = Callable[[HttpCall], None]

TICK_S = 1.0  # idle and header time-outs of sessions


class Driver(Protocol):
    async def start(self, grpc: list[socket.socket], http: list[socket.socket]) -> None:
        """Accepts from these listening sockets."""

    def stop_listening(self) -> None: ...
    def shutdown(self) -> None:
        """Tells clients to go elsewhere; what was admitted is answered."""

    def open_sessions(self) -> int: ...
    def statistics(self) -> list[IoStatistics]: ...
    async def close(self) -> None: ...
    def close_now(self) -> None:
        """As close, without the loop: it is not running, or this is its thread."""


def driver_for(
    io_threads: int,
    core: _core.Engine,
    limits: config.Limits,
    on_grpc_call: OnGrpcCall,
    on_http_call: OnHttpCall,
    tls: Certificates | None = None,
    client_streams: Sequence[str] = (),
) -> Driver:
    """`io_threads` 0: the loop's own thread. `client_streams`: paths of the gRPC methods that take a stream of requests."""
    options: dict[str, Any] = {
        "on_grpc_call": on_grpc_call,
        "on_http_call": on_http_call,
        "max_message_bytes": limits.max_message_bytes,
        "max_streams": limits.max_streams,
        "max_stream_requests": limits.max_stream_requests,
        "compress_answers": limits.compress_grpc_answers,
        "tls_grpc": tls.grpc if tls else None,
        "tls_http": tls.http if tls else None,
        "client_streams": client_streams,
    }
    if io_threads == 0:
        return LoopDriver(IoLoop(core, **options))
    return ThreadsDriver(IoThreads(core, io_threads, **options))


class LoopDriver:
    """Sockets under uvloop: one thread for everything, Python included."""

    def __init__(self, io: IoLoop) -> None:
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._tick: asyncio.TimerHandle | None = None
        self._io = io

    async def start(self, grpc: list[socket.socket], http: list[socket.socket]) -> None:
        self._loop.add_reader(self._io.event_fd, self._io.on_wake)
        for protocol, sockets in ((self._io.http_protocol, http), (self._io.grpc_protocol, grpc)):
            for sock in sockets:
                # Both call listen() again, by default for 100 connections.
                if sock.family == socket.AF_UNIX:
                    server = await self._loop.create_unix_server(protocol, sock=sock, backlog=BACKLOG)
                else:
                    server = await self._loop.create_server(protocol, sock=sock, backlog=BACKLOG)
                self._servers.append(server)
        self._on_tick()

    def stop_listening(self) -> None:
        for server in self._servers:
            server.close()

    def shutdown(self) -> None:
        self._io.shutdown()

    def open_sessions(self) -> int:
        return self._io.open_sessions()

    def statistics(self) -> list[IoStatistics]:
        return self._io.statistics()

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        _unwatch(self._loop, self._io.event_fd)
        self._io.close()

    def _on_tick(self) -> None:
        self._io.tick()
        self._tick = self._loop.call_later(TICK_S, self._on_tick)


class ThreadsDriver:
    """Sockets on threads that never take the interpreter lock; only cold calls come to the loop."""

    def __init__(self, io: IoThreads) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._io = io

    async def start(self, grpc: list[socket.socket], http: list[socket.socket]) -> None:
        self._loop.add_reader(self._io.event_fd, self._io.on_wake)
        for sock in http:
            self._io.listen_http(sock)
        for sock in grpc:
            self._io.listen_grpc(sock)
        self._sockets = [*http, *grpc]

    def stop_listening(self) -> None:
        self._io.stop_listening()
        for sock in self._sockets:  # the threads have duplicates of their own
            sock.close()

    def shutdown(self) -> None:
        self._io.shutdown()

    def open_sessions(self) -> int:
        return self._io.open_sessions()

    def statistics(self) -> list[IoStatistics]:
        return self._io.statistics()

    async def close(self) -> None:
        self._loop.remove_reader(self._io.event_fd)
        await asyncio.to_thread(self._io.close)

    def close_now(self) -> None:
        _unwatch(self._loop, self._io.event_fd)
        self._io.close()


def _unwatch(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    if not loop.is_closed():
        loop.remove_reader(fd)
