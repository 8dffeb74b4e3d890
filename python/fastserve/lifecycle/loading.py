"""Carries out one load: on a thread of its own, within its time limit, and says what is to follow when it fails.

A backend's load cannot be interrupted. One that passes its limit is given up: the version is FAILED, the engine throws the
result away when it comes, and the thread's place goes to another load, as long as no more than MOST_HUNG hang like that. Beyond,
each one that hangs takes a place; when no place is left, loads fail at once, until one of those threads comes back.
Runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fastserve import _core, errors
from fastserve.lifecycle import backend_choice
from fastserve.lifecycle.load_counts import LoadCounts
from fastserve.lifecycle.loaders import Threads
from fastserve.lifecycle.retry import RetryRule, is_passing, reason_label
from fastserve.lifecycle.transitions import Life
from fastserve.lifecycle.version_record import VersionRecord
from fastserve.lifecycle.version_spec import VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

MOST_HUNG = 4  # loads beyond their time limit whose threads are replaced
_LOOK_AGAIN_S = (
    1.0  # a load at its limit that cannot be given up: it ends just now, or is between two backends
)

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done


class Core(Protocol):
    """The part of _core.Engine that is used here."""

    def load(self, spec: _core.LoadSpec, progress: Callable[[float, str], None] | None = None) -> None: ...
    def give_up_load(self, model: str, version: int) -> bool: ...


class Loading:
    def __init__(
        self,
        core: Core,
        threads: Threads,
        counts: LoadCounts,
        *,
        places: int,
        rule: RetryRule,
        random: Callable[[], float],
        on_progress: Progress | None,
        touch: Callable[[str], None],
        thread_came_back: Callable[[], None],
    ) -> None:
        """`places`: loads that run at a time. `touch`: has the policy look at a model again."""
        self._core = core
        self._threads = threads
        self._counts = counts
        self._places = places
        self._rule = rule
        self._random = random
        self._on_progress = on_progress
        self._touch = touch
        self._thread_came_back = thread_came_back
        self.hung = 0  # loads that were given up and still run

    @property
    def places(self) -> int:
        """That are left to loads in time, which run or could."""
        return max(0, self._places - max(0, self.hung - MOST_HUNG))

    async def load(self, record: VersionRecord, spec: VersionSpec, limit_s: float) -> None:
        """After record.load_begins(spec). Does not raise: how it ended is in the record."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._in_time(record, spec, limit_s)
        except Exception as error:  # whatever a backend throws: this version failed, the others go on
            self._failed(record, error)
            return
        record.load_ended(spec)
        record.load_s = loop.time() - began
        logger.info("%s is ready (%.1f s)", record.text, record.load_s, extra=record.fields)

    def refuse(self, record: VersionRecord, spec: VersionSpec) -> None:
        """A load that cannot begin because every place hangs; it is due again when a thread comes back."""
        record.refused = spec
        error = errors.Unavailable(self.no_place)
        self._counts.failed(record.model, record.version, reason_label(error))
        logger.error("%s is not loaded: %s", record.text, error, extra=record.fields)

    @property
    def no_place(self) -> str:
        return f"no loader thread is left: {self.hung} loads hang beyond their time limit"

    async def _in_time(self, record: VersionRecord, spec: VersionSpec, limit_s: float) -> None:
        report = self._report(record)
        future = self._threads.run(
            f"load-{record.model}-{record.version}", lambda: backend_choice.load(self._core, spec, report)
        )
        wait_s = limit_s if limit_s > 0 else None
        while True:
            done, _ = await asyncio.wait({future}, timeout=wait_s)
            if done:
                return future.result()
            if self._core.give_up_load(record.model, record.version):
                break
            wait_s = _LOOK_AGAIN_S
        self.hung += 1
        self._counts.timeouts += 1
        record.late.append(spec)
        future.add_done_callback(partial(self._came_late, record, spec))
        doing = f", while {record.what}" if record.what else ""
        raise errors.DeadlineExceeded(f"loading took longer than {limit_s:g} s (--load-timeout-secs){doing}")

    def _came_late(self, record: VersionRecord, spec: VersionSpec, future: asyncio.Future[None]) -> None:
        self.hung -= 1
        record.late.remove(spec)
        future.exception()  # looked at; that it was given up is in the record
        logger.info(
            "%s: the load that was given up has ended, its result is thrown away",
            record.text,
            extra=record.fields,
        )
        if record.retry_pause_s is not None and record.tried not in record.late:
            self._try_later(record, record.retry_pause_s)
        self._thread_came_back()

    def _failed(self, record: VersionRecord, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        record.load_failed(reason)
        self._counts.failed(record.model, record.version, reason_label(error))
        pause_s = self._rule.pause_s(record.failures, self._random()) if is_passing(error) else None
        known = record.logged == reason
        record.logged = reason
        logger.log(
            logging.DEBUG if known else logging.ERROR,
            "%s failed to load: %s%s",
            record.text,
            reason,
            ""
            if pause_s is None
            else f" (tried again in {pause_s:.1f} s{' from its end' if record.is_late else ''})",
            extra=record.fields,
        )
        if pause_s is not None and record.is_late:
            record.retry_pause_s = pause_s
        elif pause_s is not None:
            self._try_later(record, pause_s)

    def _try_later(self, record: VersionRecord, pause_s: float) -> None:
        loop = asyncio.get_running_loop()
        record.retry_pause_s = None
        record.retry_at = loop.time() + pause_s
        loop.call_at(record.retry_at, self._touch, record.model)

    def _report(self, record: VersionRecord) -> Callable[[float, str], None]:
        """The engine's progress callback (loader thread) -> the event loop."""
        loop = asyncio.get_running_loop()
        life = record.loads

        def report(fraction: float, what: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._progressed, record, life, fraction, what)

        return report

    def _progressed(self, record: VersionRecord, life: Life | None, fraction: float, what: str) -> None:
        if record.loads is not life:
            return  # it was given up
        record.progress, record.what = fraction, what
        if self._on_progress is not None:
            self._on_progress(record.model, record.version, fraction, what)
