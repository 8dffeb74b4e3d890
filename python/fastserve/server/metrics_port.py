"""/metrics of one server: the registry, the loop's lag and the listener, put together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from fastserve import _core
from fastserve._io import IoStatistics
from fastserve.metrics import CONTENT_TYPE, EngineCollector, LoopLag, exposition
from fastserve.server.metrics_listener import MetricsListener


class MetricsPort:
    def __init__(
        self, core: _core.Engine, io_statistics: Callable[[], Iterable[IoStatistics]], version: str
    ) -> None:
        self._lag = LoopLag()
        self._registry = CollectorRegistry()  # ours alone: nothing global is touched
        self._registry.register(EngineCollector(core, io_statistics, self._lag.take_max, version))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._listener = MetricsListener(lambda: exposition(self._registry.collect()), CONTENT_TYPE)

    async def start(self, sockets: list[socket.socket]) -> None:
        self._lag.start(asyncio.get_running_loop())
        await self._listener.start(sockets)

    async def close(self) -> None:
        self._lag.stop()
        await self._listener.close()
