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
import socket
import time
from collections.abc import Callable

import fastserve
from fastserve import Engine, config
from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.grpc_registry import GrpcRouter
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served
from fastserve.frontends.tracing import tracing_of
from fastserve.lifecycle import ModelControl, Reconciler, Repositories, Scan
from fastserve.metrics import LocalCollector, TlsCollector
from fastserve.server.drivers import driver_for
from fastserve.server.listeners import address_text, listen_all, unlink_unix
from fastserve.server.local import LocalTransport, local_transport
from fastserve.server.metrics_port import MetricsPort
from fastserve.server.tls import Certificates

log = logging.getLogger("fastserve.server")

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done

FLUSH_S = 0.5  # for clients to take what was written and to close, once everything is answered


class Server:
    def __init__(
        self,
        listeners: config.Server,
        limits: config.Limits,
        repository: config.Repository,
        engine: Engine,
        *,
        repositories: Repositories,
        tracing: config.Tracing,
        tls: Certificates | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """Opens the sockets, so that a port in use shows before anything is loaded (StartError). A loop must
        be running."""
        self._strict = repository.strict_readiness
        self._loop = asyncio.get_running_loop()
        self._sockets = listen_all(
            {
                "http": (listeners.host, listeners.http_port),
                "grpc": (listeners.host, listeners.grpc_port),
                "metrics": (listeners.metrics_host or listeners.host, listeners.metrics_port),
            },
            {"http": listeners.http_unix_socket, "grpc": listeners.grpc_unix_socket},
        )
        self.engine = engine
        self.reconciler = Reconciler(
            engine.core, loader_threads=repository.loader_threads, on_progress=on_progress
        )
        self.served = Served(
            engine.core,
            self.reconciler,
            ModelControl(self.reconciler, repositories, explicit=repository.model_control_mode == "explicit"),
            tracing_of(engine.core, tracing),
            fastserve.__version__,
            reflection=listeners.grpc_reflection,
        )
        self._router = GrpcRouter(self.served)
        self._asgi = AsgiDriver(rest_app(self.served))
        self._driver = driver_for(
            listeners.io_threads,
            engine.core,
            limits,
            self._router.on_call,
            self._asgi.on_call,
            tls,
            self._router.client_streams(),
        )
        self._metrics = MetricsPort(
            engine.core, self._driver.statistics, fastserve.__version__, listeners.io_threads
        )

        self._local: LocalTransport | None = None
        if listeners.local is not None:
            self._local = local_transport(listeners.local, listeners.local_uids, engine.core)
            self._metrics.register(LocalCollector(self._local.statistics))
        self.tls = tls
        if tls is not None:
            statistics = self._driver.statistics
            self._metrics.register(TlsCollector(statistics, lambda: tls.files.not_after, tls.reloads))

    @property
    def http_url(self) -> str:
        scheme = "https" if self.tls and self.tls.http else "http"
        return f"{scheme}://{self.addresses['http']}"

    @property
    def addresses(self) -> dict[str, str]:
        """ "http", "grpc", "metrics" -> host:port; of a host with several addresses the first. Beside them "http_unix" and
        "grpc_unix" -> unix:/path, where there are such listeners."""
        found = {name: address_text(sockets[0]) for name, sockets in self._sockets.items()}
        for name, sockets in self._sockets.items():
            found |= {f"{name}_unix": address_text(s) for s in sockets if s.family == socket.AF_UNIX}
        return found if self._local is None else found | {"local": self._local.address}

    async def start(self, scan: Scan) -> None:
        """From here on health, metadata and metrics are answered, and models load."""
        await self._asgi.startup()
        await self._driver.start(self._sockets["grpc"], self._sockets["http"])
        if self._local is not None:
            self._local.start()
        await self._metrics.start(self._sockets["metrics"])
        self.served.tracing.start()
        if self.tls is not None:
            self.tls.start()
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
        unlink_unix(self._sockets)
        self._driver.stop_listening()
        if self._local is not None:
            self._local.stop_listening()
        if self.tls is not None:
            self.tls.stop()
        self._driver.shutdown()
        drained = await asyncio.to_thread(self.engine.core.drain, exit_timeout_s)
        await self._router.close()
        await self._asgi.shutdown()
        drained = await self._flushed(until) and drained
        await self._metrics.close()
        await self.served.tracing.close()
        if not drained:
            return False
        await self._driver.close()
        if self._local is not None:
            await asyncio.to_thread(self._local.close)
        try:
            async with asyncio.timeout_at(self._loop.time() + max(0.1, until - time.monotonic())):
                await asyncio.gather(self.served.control.close(), self.reconciler.close())
        except TimeoutError:
            return False
        await asyncio.to_thread(self.engine.close)
        return True

    async def _flushed(self, until: float) -> bool:
        """Until every answer is with its client; then a moment for connections to close by themselves."""
        answered = await _until(lambda: sum(s.streams for s in self._driver.statistics()) == 0, until)
        await _until(lambda: self._driver.open_sessions() == 0, min(until, time.monotonic() + FLUSH_S))
        return answered


async def _until(condition: Callable[[], bool], until: float) -> bool:
    """Looks again and again: only at exit, where the C++ side has no reason to tell."""
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.005)
    return True
