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
from collections import Counter
from collections.abc import Callable

import fastserve
from fastserve import Engine, config
from fastserve.errors import NotFound
from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.grpc_registry import GrpcRouter
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served
from fastserve.frontends.tracing import tracing_of
from fastserve.lifecycle import ModelControl, Reconciler, Repositories, Scan
from fastserve.lifecycle.light_start import LightStart
from fastserve.lifecycle.poller import Poller
from fastserve.lifecycle.reconciler import RetryRule
from fastserve.lifecycle.remote import Mirror
from fastserve.lifecycle.request_files import RequestFiles
from fastserve.lifecycle.residency import Rules
from fastserve.lifecycle.residency_loop import Residency
from fastserve.lifecycle.saved_state import SavedState, restore_labels
from fastserve.lifecycle.version_labels import VersionLabels
from fastserve.metrics import LifecycleCollector, LocalCollector, TlsCollector
from fastserve.metrics.control import ControlCollector
from fastserve.metrics.memory import MemoryCollector
from fastserve.metrics.poll import PollCollector
from fastserve.metrics.remote import RemoteCollector
from fastserve.server.drivers import driver_for
from fastserve.server.listeners import address_text, listen_all, unlink_unix
from fastserve.server.local import LocalTransport, local_transport
from fastserve.server.metrics_port import MetricsPort
from fastserve.server.tls import Certificates

log = logging.getLogger("fastserve.server")

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done

PATHS_S = 30.0  # that the loop has to say which files are in use
RENEW_LOOK_S = 1.0  # between two looks at models of a light start
STRICT_LOOK_S = 0.25
NOT_READY = {"NEW", "LOADING", "WARMING", "FAILED"}
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
        saved: SavedState | None = None,
        poller: Poller | None = None,
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
        engine.core.load_when_idle()
        self.reconciler = Reconciler(
            engine.core,
            loader_threads=repository.loader_threads,
            resource_preserving=repository.version_transition == "resource",
            load_timeout_s=repository.load_timeout_s,
            retry=RetryRule(limit=repository.load_retries),
            on_progress=on_progress,
        )
        self._mirror = repositories.mirror if isinstance(repositories.mirror, Mirror) else None
        if self._mirror is not None:
            self._mirror.in_use = self._paths
        self.labels = VersionLabels(engine.core)
        files = RequestFiles(limits.load_file_bytes)
        self.control = ModelControl(
            self.reconciler,
            repositories,
            explicit=repository.model_control_mode == "explicit",
            labels=self.labels,
            saved=saved,
            files=files,
            max_files=limits.load_files,
            light=LightStart(self._was_asked),
        )
        self.residency = Residency(
            engine.core,
            self.reconciler,
            Rules(repository.memory_budget_bytes, repository.unload_idle_s),
            holds=repository.on_asleep == "hold",
            on_demand=repository.load_on_demand,
            pinned=lambda: self.control.pinned,
        )
        self._renewing: asyncio.Task[None] | None = None
        self._poller = poller
        self._saved = saved
        if saved is not None:
            restore_labels(self.labels.restore, saved.labels)
            saved.follow(self.labels.assigned)
            self.labels.on_change = saved.labels_changed
        self.served = Served(
            engine.core,
            self.reconciler,
            self.control,
            tracing_of(engine.core, tracing),
            fastserve.__version__,
            reflection=listeners.grpc_reflection,
            version_labels=self.labels,
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

        self._metrics.register(
            ControlCollector(
                lambda: self.control.refused, lambda: files.held_bytes, lambda: saved.failures if saved else 0
            )
        )
        if self._mirror is not None:
            self._metrics.register(RemoteCollector(self._mirror.figures))
        if poller is not None:
            self._metrics.register(PollCollector(poller.figures))
        self._metrics.register(MemoryCollector(engine.core, self.residency))
        self._metrics.register(LifecycleCollector(self.reconciler.counts, lambda: self.reconciler.hung))

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
        self.residency.begin(scan.models)
        self.residency.start()
        await self.control.start(scan.models, self._saved.configs() if self._saved is not None else {})

    async def loaded(self) -> None:
        """Waits for the first load and sets ready; where readiness is strict, until no model is failed. From then on the server
        is ready until it stops, whatever happens to its models."""
        await self.reconciler.settle()
        if self._poller is not None:
            self._poller.start(self.control)
        if self._strict and (failed := self._failed()):
            log.error("not ready, because --strict-readiness is set and these failed: %s", ", ".join(failed))
            while self._failed():  # noqa: ASYNC110
                await asyncio.sleep(STRICT_LOOK_S)
        self.served.ready.set(True)
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Models of a start with many (lifecycle/light_start.py): prepared in full once they are asked."""
        while self.control.has_light:
            await asyncio.sleep(RENEW_LOOK_S)
            self.control.renew_asked()

    def _was_asked(self, model: str, version: int) -> bool:
        try:
            return self.engine.core.statistics(model, version).inference_count > 0
        except NotFound:  # not loaded yet, or no longer
            return False

    def summary(self) -> str:
        """One line for people: how many versions are what."""
        counts = Counter(state.state for state in self.reconciler.model_states())
        return ", ".join(f"{count} {state.lower()}" for state, count in sorted(counts.items())) or "no models"

    def _paths(self) -> list[str]:
        """Of every version that is loaded or wanted. Any thread but the loop's."""

        async def read() -> list[str]:
            keys = [(state.model, state.version) for state in self.reconciler.model_states() if state.version]
            specs = [self.reconciler.spec(model, version) for model, version in keys if version]
            return [spec.path for spec in specs if spec is not None]

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result(PATHS_S)

    def _failed(self) -> list[str]:
        states = self.reconciler.model_states()
        ready = {s.model for s in states if s.state == "READY"}
        return sorted({s.model for s in states if s.state in NOT_READY and s.model not in ready})

    async def stop(self, exit_timeout_s: float) -> bool:
        """Answers what was admitted, refuses the rest, closes everything. False: not everything was answered
        in time; the engine then still holds work, and closing it would wait for that."""
        until = time.monotonic() + exit_timeout_s
        self.served.ready.set(False)
        if self._renewing is not None:
            self._renewing.cancel()
        await self.residency.close()
        if self._mirror is not None:
            self._mirror.stop()
        if self._poller is not None:
            await self._poller.close()
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
        await asyncio.to_thread(self.control.remove_files)
        if self._saved is not None:
            await self._saved.close()
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
