"""Tracing as clients steer it: keeps the settings, tells the engine whom to sample, and writes what it sampled.

The engine decides which requests are traced and keeps their traces; here they are taken about once a second and written by
another thread. Runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fastserve import config
from fastserve.frontends.trace_file import TraceFile
from fastserve.frontends.trace_settings import Changes, TraceSetting, TraceSettings

log = logging.getLogger("fastserve.trace")

PERIOD_S = 1.0  # between two writes


class TraceCore(Protocol):
    """The part of _core.Engine that is used here."""

    def set_trace(self, model: str | None, rate: int, count: int, level: bool) -> None: ...
    def clear_trace(self, model: str) -> None: ...
    def take_traces(self) -> list[dict[str, Any]]: ...


def tracing_of(core: TraceCore, section: config.Tracing) -> Tracing:
    on = section.level == "TIMESTAMPS"
    default = TraceSetting(on, section.rate, section.count, section.log_frequency)
    return Tracing(core, default, section.file, section.max_bytes)


class Tracing:
    def __init__(
        self,
        core: TraceCore,
        default: TraceSetting | None = None,
        file: Path | None = None,
        max_bytes: int = 256 << 20,
    ) -> None:
        """`default`: what holds until somebody changes it; it may be on only where there is a `file`."""
        self._core = core
        self._settings = TraceSettings(default or TraceSetting(), str(file or ""))
        self._file = TraceFile(file, max_bytes) if file is not None else None
        self._waiting: dict[str, list[dict[str, Any]]] = {}  # traces of numbered files that are not full
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._reported = False
        if self._settings.of().on:
            self._tell("")

    @property
    def dropped(self) -> int:
        """Traces that were not written: max_bytes was reached, or the disk refused."""
        return self._file.dropped if self._file is not None else 0

    def texts(self, model: str = "") -> dict[str, list[str]]:
        """The settings of a model ("" = of all without their own), as clients see them."""
        return self._settings.texts(model)

    def change(self, changes: Changes, model: str = "") -> None:
        """Raises InvalidArgument and Unimplemented, and then nothing has changed. Counts begin anew."""
        fields = self._settings.change(changes, model)
        if not fields & {"on", "rate", "count"}:
            return
        self._tell(model)
        if not model:
            for name in self._settings.models():
                self._tell(name)

    def start(self) -> None:
        if self._file is not None:
            self._task = asyncio.get_running_loop().create_task(self._write_until_closed(self._file))

    async def close(self) -> None:
        """Writes what is left."""
        self._stop.set()
        if self._task is not None:
            await self._task

    def _tell(self, model: str) -> None:
        setting = self._settings.of(model)
        if not model or self._settings.samples_itself(model):
            self._core.set_trace(model or None, setting.rate, setting.count, setting.on)
        else:
            self._core.clear_trace(model)

    async def _write_until_closed(self, file: TraceFile) -> None:
        last = False
        while not last:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PERIOD_S)
            last = self._stop.is_set()
            await self._write(file, last)

    async def _write(self, file: TraceFile, last: bool) -> None:
        together: list[dict[str, Any]] = []
        for trace in self._core.take_traces():
            group = self._settings.numbered_with(trace["model_name"])
            if self._settings.of(group).log_frequency == 0:
                together.append(trace)
            else:
                self._waiting.setdefault(group, []).append(trace)
        numbered = self._full(last)
        if together or numbered:
            await asyncio.to_thread(self._to_disk, file, together, numbered)

    def _full(self, last: bool) -> list[list[dict[str, Any]]]:
        """Traces that make a file each."""
        found = []
        for group, traces in list(self._waiting.items()):
            size = self._settings.of(group).log_frequency or len(traces)
            while len(traces) >= size or (last and traces):
                found.append(traces[:size])
                del traces[:size]
            if not traces:
                del self._waiting[group]
        return found

    def _to_disk(
        self, file: TraceFile, together: list[dict[str, Any]], numbered: list[list[dict[str, Any]]]
    ) -> None:
        """On another thread."""
        writes = [partial(file.write_numbered, traces) for traces in numbered]
        if together:
            writes.insert(0, partial(file.append, together))
        for write in writes:
            before = file.dropped
            reason = "--trace-max-bytes is reached"
            try:
                write()
            except OSError as error:
                reason = str(error)
            if file.dropped > before and not self._reported:
                self._reported = True
                log.error("traces are dropped, now and silently from here on: %s", reason)
