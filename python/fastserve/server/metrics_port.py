"""/metrics of one server: the registry, the loop's lag and the listener, put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

from fastserve import _core
from fastserve._io import IoStatistics
from fastserve.metrics import CONTENT_TYPE, EngineCollector, GpuCollector, LoopLag, pieces
from fastserve.server.metrics_listener import MetricsListener


class MetricsPort:
    def __init__(
        self,
        core: _core.Engine,
        io_statistics: Callable[[], Iterable[IoStatistics]],
        version: str,
        io_threads: int = 0,
    ) -> None:
        self._lag = LoopLag(io_threads)
        self._registry = CollectorRegistry()  # ours alone: nothing global is touched
        self._registry.register(
            EngineCollector(core, io_statistics, self._lag, version, io_threads=io_threads)
        )
        self._gpus = GpuCollector()
        self._registry.register(self._gpus)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._listener = MetricsListener(lambda: pieces(self._registry.collect()), CONTENT_TYPE)

    def register(self, collector: Collector) -> None:
        self._registry.register(collector)

    async def start(self, sockets: list[socket.socket]) -> None:
        self._lag.start(asyncio.get_running_loop())
        self._gpus.start()
        await self._listener.start(sockets)

    async def close(self) -> None:
        self._lag.stop()
        await self._listener.close()
