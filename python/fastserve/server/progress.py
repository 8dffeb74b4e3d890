"""Progress while models load: a bar on a terminal, at most one log line a second and version elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("fastserve.server")

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done

LINE_INTERVAL_S = 1.0


@contextmanager
def progress_display() -> Iterator[Progress]:
    """What is given may be called after the end of the block too: loads by request write lines everywhere."""
    lines = ProgressLines(time.monotonic)
    if not sys.stderr.isatty():
        yield lines
        return
    shown: list[Progress] = [lines]
    with _bars() as show:
        shown[0] = show
        try:
            yield lambda *event: shown[0](*event)
        finally:
            shown[0] = lines


class ProgressLines:
    """A line when a version has something new to say and a second has passed since its last one (or its start), so that
    versions which load at once say nothing here."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: dict[tuple[str, int], tuple[float, str]] = {}

    def __call__(self, model: str, version: int, fraction: float, what: str) -> None:
        key = (model, version)
        at, said = self._last.setdefault(key, (self._now(), ""))
        if what == said or self._now() - at < LINE_INTERVAL_S:
            return
        self._last[key] = (self._now(), what)
        fields = {"model": model, "version": version, "progress": round(fraction, 3)}
        log.info("%s version %d: %s (%.0f %%)", model, version, what, fraction * 100, extra=fields)


@contextmanager
def _bars() -> Iterator[Progress]:
    # Slow to import, and needed by people alone.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[what]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[tuple[str, int], TaskID] = {}

        def show(model: str, version: int, fraction: float, what: str) -> None:
            key = (model, version)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{model} version {version}", total=1.0, what=what)
            bars.update(tasks[key], completed=fraction, what=what, visible=fraction < 1)

        yield show
