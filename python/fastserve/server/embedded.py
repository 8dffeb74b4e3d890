"""`fastserve.Server`: the front ends of an engine that a program embeds.

    with fastserve.Server(engine, http=0, grpc=0) as server:       # on a thread and a loop of its own
        print(server.addresses["grpc"])

    async with fastserve.Server(engine, http=0, grpc=0) as server: # on the running loop
        ...

What the program loads and unloads is what clients see. Stopping answers what was admitted over the network; the engine serves on.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import uvloop

import fastserve
from fastserve import config
from fastserve.engine import Engine
from fastserve.errors import FailedPrecondition, InvalidArgument
from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.grpc_registry import GrpcRouter
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served
from fastserve.frontends.tracing import tracing_of
from fastserve.metrics import LocalCollector, TlsCollector
from fastserve.server import client_shm
from fastserve.server.drivers import Driver, driver_for
from fastserve.server.engine_models import EngineModels
from fastserve.server.listeners import StartError, address_text, listen_all, unlink_unix
from fastserve.server.local import LocalTransport, local_transport
from fastserve.server.metrics_port import MetricsPort
from fastserve.server.tls import Certificates, open_certificates

Result = TypeVar("Result")

STOP_S = 30.0
_FLUSH_S = 0.5  # for clients to close by themselves, once everything is answered


class Server:
    """Any thread, but start and stop by one at a time; the `_async` half belongs to the loop that started it."""

    def __init__(
        self,
        engine: Engine,
        *,
        http: int | None = 8000,
        grpc: int | None = 8001,
        metrics: int | None = None,
        host: str = "127.0.0.1",
        http_unix_socket: str | None = None,
        grpc_unix_socket: str | None = None,
        local: str | None = None,
        local_uids: Sequence[int] = (),
        io_threads: int = 1,
        grpc_reflection: bool = False,
        limits: config.Limits | None = None,
        tls: config.Tls | None = None,
        tracing: config.Tracing | None = None,
        allow_client_shm: bool = False,
    ) -> None:
        """Ports: 0 picks a free one, None: not served. `local`: path of the local transport's socket, for processes of this
        user and of `local_uids` on this machine. `io_threads`: native threads that own the other sockets; 0: the loop does.
        `tls`, `tracing`: as the flags of `fastserve serve` that begin so. `allow_client_shm`: clients may register shared memory,
        from start on and for the engine's life; it takes SIGBUS for the whole process. Of `limits`, those of pinned and GPU
        memory are the process's and not set here. Nothing is opened before start."""
        if all(at is None for at in (http, grpc, http_unix_socket, grpc_unix_socket, local)):
            raise InvalidArgument("http, grpc, local: got None for all, want at least one front end")
        self._engine = engine
        ports = {"http": http, "grpc": grpc, "metrics": metrics}
        self._wanted = {name: (host, port) for name, port in ports.items() if port is not None}
        self._unix = {"http": http_unix_socket, "grpc": grpc_unix_socket}
        self._local = (local, tuple(map(str, local_uids)))
        self._io_threads = io_threads
        self._reflection = grpc_reflection
        self._limits = limits or config.Limits()
        self._tls = tls or config.Tls()
        self._tracing = tracing or config.Tracing()
        self._allow_client_shm = allow_client_shm
        self._running: _Running | None = None
        self._thread: _LoopThread | None = None
        self._ending = _Ending(self)

    @property
    def addresses(self) -> dict[str, str]:
        """ "http", "grpc", "metrics" -> host:port, "http_unix", "grpc_unix" -> unix:/path: what is served; empty while
        it is not."""
        return dict(self._running.addresses) if self._running is not None else {}

    # --- on a thread of its own

    def start(self) -> None:
        """Returns when the sockets answer. Raises StartError: a port is in use; FailedPrecondition: it runs already."""
        self._check_stopped()
        thread = _LoopThread()
        try:
            thread.run(self.start_async())
        except BaseException:
            thread.end()
            raise
        self._thread = thread

    def stop(self, timeout: float = STOP_S) -> bool:
        """As stop_async. Twice does nothing."""
        thread, self._thread = self._thread, None
        if thread is None:
            if self._running is not None:
                raise FailedPrecondition("the server runs on a loop of the program: await stop_async() there")
            return True
        try:
            return thread.run(self.stop_async(timeout))
        finally:
            thread.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- on the caller's loop

    async def start_async(self) -> None:
        self._check_stopped()
        self._engine.core.status()  # closed, or forked: says so before a socket is opened
        tls = open_certificates(self._tls)
        sockets = listen_all(self._wanted, self._unix)
        path, uids = self._local
        try:
            local = None if path is None else local_transport(path, uids, self._engine.core)
        except StartError:
            unlink_unix(sockets)
            for sock in (sock for group in sockets.values() for sock in group):
                sock.close()
            raise
        if self._allow_client_shm:
            client_shm.allow(self._engine.core, self._limits)
        running = _Running(
            self._engine,
            sockets,
            local,
            self._io_threads,
            self._limits,
            self._reflection,
            tls,
            self._tracing,
        )
        await running.start()
        self._running = running
        self._engine.owners.keep(self._ending)

    async def stop_async(self, timeout: float = STOP_S) -> bool:
        """Accepts nothing more, answers what was admitted, closes the sockets. False: not all of it was answered in time."""
        running = self._take_running()
        return await running.stop(timeout) if running is not None else True

    async def __aenter__(self) -> Self:
        await self.start_async()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_async()

    def _end(self, *, in_a_hurry: bool) -> None:
        if self._thread is not None and not in_a_hurry:
            self.stop()
            return
        thread, self._thread = self._thread, None
        running = self._take_running()
        if running is None:
            return
        if thread is None:
            running.stop_now()
        else:
            thread.run(_call(running.stop_now))
            thread.end()

    def _take_running(self) -> _Running | None:
        self._engine.owners.let_go(self._ending)
        running, self._running = self._running, None
        return running

    def _check_stopped(self) -> None:
        if self._running is not None:
            raise FailedPrecondition("the server runs already")


class _Ending:
    """What the engine knows of its server (embedding.owners.Owner)."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def finish(self, *, cancel: bool) -> None:
        """What was admitted is answered already. `cancel`: the interpreter ends, and loops start no threads any more."""
        self._server._end(in_a_hurry=cancel)


class _Running:
    """The front ends while they serve. Everything on one loop's thread."""

    def __init__(
        self,
        engine: Engine,
        sockets: dict[str, list[socket.socket]],
        local: LocalTransport | None,
        io_threads: int,
        limits: config.Limits,
        reflection: bool,
        tls: Certificates | None,
        tracing: config.Tracing,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sockets = sockets
        self._local = local
        models = EngineModels(engine.core)
        version = fastserve.__version__
        self._served = Served(
            engine.core,
            models,
            models,
            tracing_of(engine.core, tracing),
            version,
            reflection=reflection,
        )
        self._router = GrpcRouter(self._served)
        self._asgi = AsgiDriver(rest_app(self._served))
        self._driver: Driver = driver_for(
            io_threads,
            engine.core,
            limits,
            self._router.on_call,
            self._asgi.on_call,
            tls,
            self._router.client_streams(),
        )
        self._metrics = (
            MetricsPort(engine.core, self._driver.statistics, version, io_threads)
            if "metrics" in sockets
            else None
        )
        self._tls = tls
        if tls is not None and self._metrics is not None:
            statistics = self._driver.statistics
            self._metrics.register(TlsCollector(statistics, lambda: tls.files.not_after, tls.reloads))
        self.addresses = _addresses(sockets)
        if local is not None:
            self.addresses["local"] = local.address
            if self._metrics is not None:
                self._metrics.register(LocalCollector(local.statistics))

    async def start(self) -> None:
        await self._asgi.startup()
        await self._driver.start(self._sockets.get("grpc", []), self._sockets.get("http", []))
        if self._local is not None:
            self._local.start()
        if self._metrics is not None:
            await self._metrics.start(self._sockets["metrics"])
        self._served.tracing.start()
        if self._tls is not None:
            self._tls.start()
        self._served.ready.set(True)

    async def stop(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        self._refuse_new()
        answered = await _until(lambda: sum(s.streams for s in self._driver.statistics()) == 0, until)
        await self._router.close()
        await self._asgi.shutdown()
        await _until(lambda: self._driver.open_sessions() == 0, min(until, time.monotonic() + _FLUSH_S))
        if self._metrics is not None:
            await self._metrics.close()
        await self._served.tracing.close()
        await self._driver.close()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)
        return answered

    def stop_now(self) -> None:
        """The loop does not run any more, or is the one that waits for this."""
        self._refuse_new()
        self._driver.close_now()
        if self._local is not None:
            self._local.close()

    def _refuse_new(self) -> None:
        self._served.ready.set(False)
        unlink_unix(self._sockets)
        self._driver.stop_listening()
        if self._local is not None:
            self._local.stop_listening()
        if self._tls is not None:
            self._tls.stop()
        self._driver.shutdown()


def _addresses(sockets: dict[str, list[socket.socket]]) -> dict[str, str]:
    found = {}
    for name, group in sockets.items():
        for sock in reversed(group):  # of a host with several addresses the first
            found[f"{name}_unix" if sock.family == socket.AF_UNIX else name] = address_text(sock)
    return found


async def _until(condition: Callable[[], bool], until: float) -> bool:
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True


async def _call(what: Callable[[], None]) -> None:
    what()


class _LoopThread:
    """A uvloop loop on a thread of its own."""

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(
            target=_run_loop, args=(started,), name="fastserve-server", daemon=True
        )
        self._thread.start()
        self._loop = started.result()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _run_loop(started: Future[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        started.set_result(loop)
        loop.run_forever()
