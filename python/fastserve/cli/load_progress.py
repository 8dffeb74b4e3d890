"""What `load`, `unload` and `reload` show while the server works: one line on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from fastserve.cli.model_rows import LOADING, Row

LOOK_S = 0.2


class LoadProgress:
    """Looks at the server beside the call that takes long. `read`: the rows now; its errors are nobody's business here."""

    def __init__(self, read: Callable[[], list[Row]], model: str = "") -> None:
        self._read = read
        self._model = model
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._shown = False

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(1.0)
            if self._shown:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            try:
                line = progress_line(row for row in self._read() if self._model in ("", row.name))
            except Exception:  # the call itself says what is wrong
                continue
            if line and not self._end.is_set():
                sys.stderr.write(f"\r{line[:100]}\x1b[K")
                sys.stderr.flush()
                self._shown = True


def progress_line(rows: Iterable[Row]) -> str:
    """ "digits version 2 [####......] compiling"; of several, how many more."""
    loading = [row for row in rows if row.state in LOADING]
    if not loading:
        return ""
    first = max(loading, key=lambda row: row.progress or 0.0)
    full = round((first.progress or 0.0) * 10)
    more = f"  and {len(loading) - 1} more" if len(loading) > 1 else ""
    return f"{first.name} version {first.version} [{'#' * full}{'.' * (10 - full)}] {first.reason}{more}"
