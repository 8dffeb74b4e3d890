"""Files of traces, as Triton writes them: a JSON array of {"id", "model_name", "model_version", "timestamps": [{"name",
"ns"}]}, readable at any time.

Blocking; one thread at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_END = b"\n]\n"


class TraceFile:
    """Writes until `max_bytes` are reached, all files together; then, and when the disk refuses (OSError), traces are
    dropped and counted."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._size = 0  # of the file at `path`, as this object left it
        self._next_number = 0
        self.written_bytes = 0  # of all files
        self.dropped = 0

    def append(self, traces: Iterable[Mapping[str, Any]]) -> None:
        """To the array in the file itself; the first call replaces what was there before the server started."""
        lines = [_line(trace) for trace in traces]
        goes_on = self._size > 0 and self._is_as_left()
        content = (b",\n" if goes_on else b"[\n") + b",\n".join(lines) + _END
        if not self._may_write(len(content), len(lines)):
            return
        try:
            with self._path.open("r+b" if goes_on else "wb") as file:
                if goes_on:
                    file.seek(self._size - len(_END))
                file.write(content)
                self._size = file.tell()
        except OSError:
            self.dropped += len(lines)
            self._size = 0
            raise
        self.written_bytes += len(content)

    def write_numbered(self, traces: Iterable[Mapping[str, Any]]) -> None:
        """An array in a file of its own: FILE.0, FILE.1, ... It is there with its whole content or not at all."""
        lines = [_line(trace) for trace in traces]
        content = b"[\n" + b",\n".join(lines) + _END
        if not self._may_write(len(content), len(lines)):
            return
        target = self._path.with_name(f"{self._path.name}.{self._next_number}")
        unfinished = target.with_name(f".{target.name}.part")
        try:
            unfinished.write_bytes(content)
            unfinished.replace(target)
        except OSError:
            self.dropped += len(lines)
            raise
        self._next_number += 1
        self.written_bytes += len(content)

    def _may_write(self, size: int, traces: int) -> bool:
        if self.written_bytes + size <= self._max_bytes:
            return True
        self.dropped += traces
        return False

    def _is_as_left(self) -> bool:
        """Nobody moved it away or cut it short."""
        try:
            return os.stat(self._path).st_size == self._size
        except OSError:
            return False


def _line(trace: Mapping[str, Any]) -> bytes:
    """One trace of core.take_traces() on one line."""
    line: dict[str, Any] = {
        "id": trace["id"],
        "model_name": trace["model_name"],
        "model_version": trace["model_version"],
    }
    if trace.get("request_id"):
        line["request_id"] = trace["request_id"]
    line["timestamps"] = [{"name": name, "ns": ns} for name, ns in trace["timestamps"]]
    return json.dumps(line, separators=(",", ":")).encode()
