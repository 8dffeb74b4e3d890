"""How late the event loop runs what is due: the time that somebody's Python kept the loop busy."""

from __future__ import annotations

import asyncio

PERIOD_S = 0.5


class LoopLag:
    """Samples twice a second, on the loop's thread; nothing depends on it."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self.max_s = 0.0  # since the last call of take_max
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + PERIOD_S
        self._timer = loop.call_at(due, self._sample, loop, due)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def take_max(self) -> float:
        """The worst sample since the last call, so that a scrape misses nothing."""
        worst, self.max_s = max(self.max_s, self.last_s), 0.0
        return worst

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.last_s = max(0.0, loop.time() - due)
        self.max_s = max(self.max_s, self.last_s)
        self.start(loop)
