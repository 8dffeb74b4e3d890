"""How late the uvloop loop runs what is due: the time that somebody's Python, or too much traffic, kept it busy."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

log = logging.getLogger("fastserve.metrics")

PERIOD_S = 0.25
WINDOW = 240  # samples that the figures look back on: a minute, as long as scrapes are apart
RECENT = 20  # samples that the warning looks back on: 5 s
QUANTILES = ("0.5", "0.99", "1")

# A thread that computes in Python delays every turn of the loop by the interpreter's switch interval, which is 5 ms; then half of
# all samples are late. Single long pauses want three, so that a start or one slow call says nothing.
LATE_S, LATE_SAMPLES = 0.004, RECENT // 2
PAUSE_S, PAUSE_SAMPLES = 0.05, 3
WARN_EVERY_S = 60.0


class LagWindow:
    """The figures and the judgement; time is an argument."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=WINDOW)
        self._warned_at: float | None = None

    def add(self, lag_s: float) -> None:
        self._samples.append(max(0.0, lag_s))

    def quantiles(self) -> dict[str, float]:
        """By the name of the quantile; "1" is the longest. Nearest rank; 0.0 before the first sample."""
        ordered = sorted(self._samples) or [0.0]
        return {q: ordered[round(float(q) * (len(ordered) - 1))] for q in QUANTILES}

    def worth_a_warning(self, now_s: float) -> float | None:
        """The worst recent lag when lags are high and nothing was said lately; then it counts as said."""
        if self._warned_at is not None and now_s - self._warned_at < WARN_EVERY_S:
            return None
        recent = sorted(list(self._samples)[-RECENT:], reverse=True)
        late = len(recent) >= LATE_SAMPLES and recent[LATE_SAMPLES - 1] >= LATE_S
        pauses = len(recent) >= PAUSE_SAMPLES and recent[PAUSE_SAMPLES - 1] >= PAUSE_S
        if not late and not pauses:
            return None
        self._warned_at = now_s
        return recent[0]


class LoopLag:
    """Samples four times a second, on the loop's thread; nothing depends on it."""

    def __init__(self, io_threads: int = 0) -> None:
        """`io_threads`: as configured, for the advice."""
        self._io_threads = io_threads
        self._window = LagWindow()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not loop.time(), which uvloop reads once a turn and rounds to milliseconds.
        self._timer = loop.call_later(PERIOD_S, self._sample, loop, time.monotonic() + PERIOD_S)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def quantiles(self) -> dict[str, float]:
        return self._window.quantiles()

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = time.monotonic()
        self._window.add(now - due)
        if (worst := self._window.worth_a_warning(now)) is not None:
            log.warning("%s", advice(worst, self._io_threads))
        self.start(loop)


def advice(worst_s: float, io_threads: int) -> str:
    found = (
        f"the Python loop is late, by {worst_s * 1000:.0f} ms at worst in the last {RECENT * PERIOD_S:.0f} s"
    )
    if io_threads == 0:
        return (
            f"{found}, and inference waits for it: Python code of this process or the traffic keeps it busy. "
            "--io-threads 1 (or more) serves inference on threads that do not need it"
        )
    return f"{found}: management calls, metadata and metrics wait for it; inference (--io-threads {io_threads}) does not"
