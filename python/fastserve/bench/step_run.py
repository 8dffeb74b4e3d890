"""One step of a run: what is sent when, and what is counted. One thread, with a Driver's connections."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Generator
from pathlib import Path

from fastserve.bench.connection import Connection
from fastserve.bench.driver import Driver
from fastserve.bench.plan import Step, Tally
from fastserve.bench.schedule import due_times
from fastserve.bench.session import UNAVAILABLE, Done

Progress = Callable[[int, int], None]  # requests answered so far, errors so far

_HOUSEKEEPING_NS = 20_000_000
_PROGRESS_NS = 200_000_000
_FLUSH_VALUES = 1 << 16
_FOREVER_NS = 1 << 62


def run_step(driver: Driver, step: Step, progress: Progress | None = None) -> Tally:
    """Blocks from step.start_ns until the last answer of the window is there or its time is up."""
    gc.collect()
    gc.disable()
    try:
        return _Run(driver, step, progress).tally()
    finally:
        gc.enable()


def _waited_ns() -> int:
    """How long this thread has been ready to run without a CPU, since it began; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


class _Run:
    """One step."""

    def __init__(self, driver: Driver, step: Step, progress: Progress | None) -> None:
        self._driver, self._step, self._progress = driver, step, progress
        self._tally = Tally()
        self._begin_ns = step.start_ns + step.warmup_ns  # of the window
        self._end_ns = self._begin_ns + step.duration_ns
        self._latencies = array("q")
        self._lags = array("q")
        self._answered = 0
        self._sent_in_window = 0
        self._blocked_until_ns = 0  # the last time at which there was no room
        self._housekeeping_ns = 0
        self._progress_ns = 0
        self._ended_by_count = False
        self._last_answer_ns = 0
        self._cpu_begin_ns = self._cpu_end_ns = -1
        self._waited_begin_ns = self._waited_end_ns = 0

    def tally(self) -> Tally:
        step, driver = self._step, self._driver
        while (left := step.start_ns - time.monotonic_ns()) > 0:
            driver.poll(min(left / 1e9, 0.05))
        send = self._open_loop() if step.mode == "open" else self._closed_loop()
        next(send)
        while True:
            now = time.monotonic_ns()
            self._tick(now)
            wake_ns = send.send(now)
            if wake_ns is None:
                break
            self._take(driver.poll(max(0, min(wake_ns, self._housekeeping_ns) - time.monotonic_ns()) / 1e9))
        self._drain()
        self._finish()
        return self._tally

    def _open_loop(self) -> Generator[int | None, int, None]:
        """A coroutine: takes the time, sends what is due, gives the time to wake up at; None at the window's end."""
        step, driver = self._step, self._driver
        times = due_times(step.arrival, step.level, seed=step.seed, share=step.share, shares=step.shares)
        due = step.start_ns + next(times)
        now: int = yield 0
        while True:
            touched = set()
            while due <= now and due < self._end_ns and driver.has_room and not self._ended_by_count:
                touched.add(driver.send(due, now))
                if due >= self._begin_ns:
                    self._lags.append(now - max(due, self._blocked_until_ns))
                    self._count_sent(now)
                due = step.start_ns + next(times)
            self._write(touched)
            if due <= now and due < self._end_ns:  # no room: wake up with an answer
                self._blocked_until_ns = now
            if now >= self._end_ns:
                break
            now = yield min(self._end_ns, due if driver.has_room else _FOREVER_NS)
        while (
            due < self._end_ns and not self._ended_by_count
        ):  # what never found room: its latency is at least the wait until now
            if due >= self._begin_ns:
                self._tally.unsent += 1
                self._latencies.append(now - due)
                half = self._tally.halves[due >= self._begin_ns + (self._end_ns - self._begin_ns) // 2]
                half[0] += now - due
                half[1] += 1
            due = step.start_ns + next(times)
        yield None

    def _closed_loop(self) -> Generator[int | None, int, None]:
        driver, wanted = self._driver, int(self._step.level)
        now: int = yield 0
        while now < self._end_ns:
            touched = set()
            while driver.in_flight < wanted and driver.has_room and not self._ended_by_count:
                touched.add(driver.send(now, now))
                if now >= self._begin_ns:
                    self._count_sent(now)
            self._write(touched)
            now = yield self._end_ns
        yield None

    def _count_sent(self, now: int) -> None:
        self._sent_in_window += 1
        if self._sent_in_window == self._step.max_requests:
            self._end_ns = now + 1
            self._ended_by_count = True

    def _write(self, touched: set[Connection]) -> None:
        for connection in touched:
            done = self._driver.written(connection)
            if done:
                self._driver.in_flight -= len(done)
                self._take(done)
                self._driver.refresh(connection)

    def _take(self, done: list[Done]) -> None:
        if not done:
            return
        now = time.monotonic_ns()
        begin, end, latencies = self._begin_ns, self._end_ns, self._latencies
        in_window = begin <= now and (now < end or self._ended_by_count)
        middle, halves = begin + (end - begin) // 2, self._tally.halves
        self._last_answer_ns = now
        for tag, code, message in done:
            due = tag.due_ns
            if code == 0:
                self._tally.ok_in_window += in_window
                if begin <= due < end:
                    latencies.append(now - due)
                    half = halves[due >= middle]
                    half[0] += now - due
                    half[1] += 1
            elif begin <= due < end:
                self._error(code, message)
        self._answered += len(done)
        if len(latencies) >= _FLUSH_VALUES:
            self._flush()

    def _error(self, code: int, message: str) -> None:
        self._tally.errors[code] = self._tally.errors.get(code, 0) + 1
        self._tally.messages.setdefault(code, message)

    def _tick(self, now: int) -> None:
        if self._cpu_begin_ns < 0 and now >= self._begin_ns:
            self._cpu_begin_ns, self._waited_begin_ns = time.process_time_ns(), _waited_ns()
        if self._cpu_end_ns < 0 and now >= self._end_ns:
            self._cpu_end_ns, self._waited_end_ns = time.process_time_ns(), _waited_ns()
        problem = self._driver.keep_up(self._step.connections, now)
        if problem and self._begin_ns <= now < self._end_ns:
            self._error(UNAVAILABLE, problem)
        if now < self._housekeeping_ns:
            return
        self._housekeeping_ns = now + _HOUSEKEEPING_NS
        self._take(self._driver.expire(now - self._driver.timeout_ns))
        if self._progress is not None and now >= self._progress_ns:
            self._progress_ns = now + _PROGRESS_NS
            self._progress(self._answered, sum(self._tally.errors.values()))

    def _drain(self) -> None:
        """The window's requests still in flight; what does not come within its timeout expires."""
        while self._driver.in_flight:
            self._take(self._driver.poll(0.05))
            self._take(self._driver.expire(time.monotonic_ns() - self._driver.timeout_ns))

    def _flush(self) -> None:
        self._tally.latencies.add(self._latencies)
        self._tally.lags.add(self._lags)
        del self._latencies[:], self._lags[:]

    def _finish(self) -> None:
        self._flush()
        tally = self._tally
        end_ns = max(self._end_ns, self._last_answer_ns) if self._ended_by_count else self._end_ns
        tally.window_ns = max(1, end_ns - self._begin_ns)
        tally.due = self._sent_in_window + tally.unsent
        if self._ended_by_count or self._cpu_end_ns < 0:
            self._cpu_end_ns, self._waited_end_ns = time.process_time_ns(), _waited_ns()
        if self._cpu_begin_ns >= 0:
            tally.cpu_ns = self._cpu_end_ns - self._cpu_begin_ns
            tally.starved = (self._waited_end_ns - self._waited_begin_ns) / tally.window_ns
        tally.busiest = tally.cpu_ns / tally.window_ns
        tally.received_bytes = self._driver.received_bytes
