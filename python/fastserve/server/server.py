"""One server: listeners, front ends and the reconciler around one engine. It has no private door into the
engine.

    server = Server(config.server, config.limits, config.repository, engine)
    await server.start(scan)       # sockets answer; models load
    await server.loaded()          # the first load is finished: ready
    await server.stop(30.0)        # drain

Everything runs on the loop's thread; what blocks in the engine runs on other threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import fastserve
from fastserve import Engine, config
from fastserve._io import GrpcCall, HttpCall, IoLoop
from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.grpc_registry import GrpcRouter
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served
from fastserve.lifecycle import Reconciler, Scan
from fastserve.server.listeners import address_text, listen_all
from fastserve.server.metrics_port import MetricsPort

log = logging.getLogger("fastserve.server")

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done

TICK_S = 1.0  # idle and header time-outs of sessions
FLUSH_S = 0.5  # for clients to take what was written and to close, once everything is answered


class Server:
    def __init__(
        self,
        listeners: config.Server,
        limits: config.Limits,
        repository: config.Repository,
        engine: Engine,
        *,
        on_progress: Progress | None = None,
    ) -> None:
        """Opens the sockets, so that a port in use shows before anything is loaded (StartError). A loop must
        be running."""
        self._strict = repository.strict_readiness
        self._loop = asyncio.get_running_loop()
        self._asyncio_servers: list[asyncio.Server] = []
        self._tick: asyncio.TimerHandle | None = None
        self._sockets = listen_all(
            {
                "http": (listeners.host, listeners.http_port),
                "grpc": (listeners.host, listeners.grpc_port),
                "metrics": (listeners.metrics_host or listeners.host, listeners.metrics_port),
            }
        )
        self.engine = engine
        self.reconciler = Reconciler(
            engine.core, loader_threads=repository.loader_threads, on_progress=on_progress
        )
        self.served = Served(engine.core, self.reconciler, fastserve.__version__)
        self._router = GrpcRouter(self.served)
        self._asgi = AsgiDriver(rest_app(self.served))
        self._io = IoLoop(
            engine.core,
            on_grpc_call=self._on_grpc_call,
            on_http_call=self._on_http_call,
            max_message_bytes=limits.max_message_bytes,
            max_streams=limits.max_streams,
            server_header="fastserve",
        )
        self._metrics = MetricsPort(engine.core, lambda: [self._io.statistics()], fastserve.__version__)

    @property
    def addresses(self) -> dict[str, str]:
        """ "http", "grpc", "metrics" -> host:port; of a host with several addresses the first."""
        return {name: address_text(sockets[0]) for name, sockets in self._sockets.items()}

    async def start(self, scan: Scan) -> None:
        """From here on health, metadata and metrics are answered, and models load."""
        await self._asgi.startup()
        self._loop.add_reader(self._io.event_fd, self._io.on_wake)
        for name, protocol in (("http", self._io.http_protocol), ("grpc", self._io.grpc_protocol)):
            for sock in self._sockets[name]:
                self._asyncio_servers.append(await self._loop.create_server(protocol, sock=sock))
        await self._metrics.start(self._sockets["metrics"])
        self._on_tick()
        await self.reconciler.set_wanted(scan.wanted, scan.failures)

    async def loaded(self) -> bool:
        """Waits for the first load and sets ready. False: a model failed and readiness is strict."""
        await self.reconciler.settle()
        failed = [s.model for s in self.reconciler.model_states() if s.state == "FAILED"]
        if self._strict and failed:
            log.error("not ready, because --strict-readiness is set and these failed: %s", ", ".join(failed))
            return False
        self.served.ready.set(True)
        return True

    async def stop(self, exit_timeout_s: float) -> bool:
        """Answers what was admitted, refuses the rest, closes everything. False: not everything was answered
        in time; the engine then still holds work, and closing it would wait for that."""
        until = time.monotonic() + exit_timeout_s
        self.served.ready.set(False)
        for server in self._asyncio_servers:
            server.close()
        self._io.shutdown()
        drained = await asyncio.to_thread(self.engine.core.drain, exit_timeout_s)
        await self._router.close()
        await self._asgi.shutdown()
        drained = await self._flushed(until) and drained
        await self._metrics.close()
        if self._tick is not None:
            self._tick.cancel()
        if not drained:
            return False
        self._loop.remove_reader(self._io.event_fd)
        self._io.close()
        try:
            async with asyncio.timeout_at(self._loop.time() + max(0.1, until - time.monotonic())):
                await self.reconciler.close()
        except TimeoutError:
            return False
        await asyncio.to_thread(self.engine.close)
        return True

    async def _flushed(self, until: float) -> bool:
        """Until every answer is with its client; then a moment for connections to close by themselves."""
        answered = await _until(lambda: self._io.statistics().streams == 0, until)
        await _until(lambda: self._io.open_sessions() == 0, min(until, time.monotonic() + FLUSH_S))
        return answered

    def _on_tick(self) -> None:
        self._io.tick()
        self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _on_grpc_call(self, call: GrpcCall) -> None:
        self._router.on_call(call)

    def _on_http_call(self, call: HttpCall) -> None:
        self._asgi.on_call(call)


async def _until(condition: Callable[[], bool], until: float) -> bool:
    """Looks again and again: only at exit, where the C++ side has no reason to tell."""
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True
