"""Files of a store into a folder: in ranges, several at a time, going on where an earlier try stopped, then verified.

Beside a file that is not complete lies `.<name>.ranges`: which ranges are on the disk. No file of a version is named so, as a
safe name does not begin with a dot.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from dataclasses import dataclass, field
from pathlib import Path

from fastserve.errors import FastserveError, InvalidArgument, ResourceExhausted, Unavailable
from fastserve.lifecycle.remote.listing import Listed, Part
from fastserve.lifecycle.remote.store import NoRanges, Store

logger = logging.getLogger("fastserve.remote")

PROGRESS_S = 10.0  # between two lines of the log
_HASH_BYTES = 4 << 20


class Corrupt(InvalidArgument):
    """A file is not what the store or the manifest says."""


@dataclass
class Progress:
    """Says from time to time how far a version is. Any thread."""

    what: str
    total_bytes: int
    now: Callable[[], float] = time.monotonic
    done_bytes: int = 0
    resumed_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = -1.0
    _said: float = -1.0

    def add(self, count: int) -> None:
        with self._lock:
            now = self.now()
            if self._began < 0:
                self._began = self._said = now
            self.done_bytes += count
            if now - self._said < PROGRESS_S:
                return
            self._said = now
        rate = self.done_bytes / max(now - self._began, 1e-3)
        done = self.done_bytes + self.resumed_bytes
        share = 100 * done // max(self.total_bytes, 1)
        logger.info("%s: %d %% of %.1f MB, %.1f MB/s", self.what, share, self.total_bytes / 1e6, rate / 1e6)


def download(store: Store, part: Part, folder: Path, range_bytes: int, pool: Executor) -> Progress:
    """Makes `folder` hold exactly the part's files. Corrupt: not what the store says, after a second try; Unavailable: it
    does not answer, and what came is kept for the next try; ResourceExhausted: the disk is full."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_strangers(folder, part)
    progress = Progress(f"downloading {part.where}", part.bytes)
    todo = [_File(store, part.where, file, folder, range_bytes, progress) for file in part.files]
    missing = part.bytes - progress.resumed_bytes
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise ResourceExhausted(
            f"{part.where} needs {missing} more bytes, '{folder}' has {free} left on its disk"
        )
    if progress.resumed_bytes:
        logger.info("%s: %d of %d bytes are here already", part.where, progress.resumed_bytes, part.bytes)
    _all(pool, [(file.get, start) for file in todo for start in file.missing()])
    _all(pool, [(file.finish, None) for file in todo])
    return progress


def _all(pool: Executor, calls: list[tuple[Callable[..., None], int | None]]) -> None:
    futures = [pool.submit(call, *([] if argument is None else [argument])) for call, argument in calls]
    done, pending = wait(futures, return_when=FIRST_EXCEPTION)
    for future in pending:
        future.cancel()
    wait(pending)  # nothing may write here any more
    for future in done:
        try:
            future.result()
        except OSError as error:
            if isinstance(error, FastserveError):
                raise
            raise ResourceExhausted(f"cannot write to the cache: {error.strerror or error}") from None


def _remove_strangers(folder: Path, part: Part) -> None:
    known = {file.name for file in part.files} | {_journal(file.name) for file in part.files}
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            if os.path.relpath(path, folder) not in known:
                os.unlink(path)


class _File:
    """One file. `get` and `finish` on the pool's threads, each range once."""

    def __init__(
        self, store: Store, where: str, file: Listed, folder: Path, range_bytes: int, progress: Progress
    ) -> None:
        self.store, self.where, self.file, self.progress = store, where, file, progress
        self.range_bytes = range_bytes
        self.path = folder / file.name
        self.journal = folder / _journal(file.name)
        self._lock = threading.Lock()
        self._whole = False  # fetched as a whole: the server knows no ranges
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.done = self._resume()
        progress.resumed_bytes += sum(self._stop(start) - start for start in self.done)

    def missing(self) -> list[int]:
        """Where the ranges begin that are not here."""
        return [start for start in range(0, self.file.size, self.range_bytes) if start not in self.done]

    def get(self, start: int) -> None:
        if self._whole:
            return
        stop = self._stop(start)
        try:
            data = self.store.read(self.where + self.file.name, start, stop)
        except NoRanges:
            self._get_whole()
            return
        if len(data) != stop - start:
            raise Unavailable(
                f"{self.where}{self.file.name}: got {len(data)} bytes at {start}, want {stop - start}: it changes in the store"
            )
        self._write(start, data)
        self.progress.add(len(data))

    def finish(self) -> None:
        """Complete: verified, and on the disk."""
        if self.file.size == 0:
            self.path.write_bytes(b"")
        reason = self._wrong()
        if reason and not self._forgiven():
            self._again()
            if (reason := self._wrong()) and not self._forgiven():
                self._forget()
                raise Corrupt(f"'{self.where}{self.file.name}' is corrupt: {reason}")
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.journal.unlink(missing_ok=True)

    # --- ranges on the disk

    def _stop(self, start: int) -> int:
        return min(start + self.range_bytes, self.file.size)

    def _resume(self) -> set[int]:
        """Ranges that an earlier try brought; a file without journal is complete."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.journal.unlink(missing_ok=True)
            return set()
        starts = set(range(0, self.file.size, self.range_bytes))
        try:
            first, *lines = self.journal.read_text().splitlines() or [""]
        except FileNotFoundError:
            return starts if size == self.file.size else set()
        if first != str(self.range_bytes):
            self._forget()
            return set()
        return {
            int(line)
            for line in lines
            if line.isdigit() and int(line) in starts and self._stop(int(line)) <= size
        }

    def _write(self, start: int, data: bytes) -> None:
        with self._lock:
            new = not self.journal.exists()
            with self.journal.open(
                "a"
            ) as journal:  # before the data: a file without journal counts as complete
                if new:
                    journal.write(f"{self.range_bytes}\n")
        with open(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as file:
            view = memoryview(data)
            while view:
                written = os.pwrite(file.fileno(), view, start)
                view, start = view[written:], start + written
            os.fdatasync(file.fileno())  # the journal must not promise what a power cut takes away
        with self._lock, self.journal.open("a") as journal:
            journal.write(f"{start - len(data)}\n")

    def _get_whole(self) -> None:
        with self._lock:
            if self._whole:
                return
            self.journal.write_text("whole\n")
            self.store.fetch(self.where + self.file.name, str(self.path))
            self._whole = True
        self.progress.add(self.file.size)

    def _again(self) -> None:
        logger.warning(
            "%s%s does not have the right content: downloading it again", self.where, self.file.name
        )
        self._forget()
        self.done, self._whole = set(), False
        for start in self.missing():
            self.get(start)

    def _forget(self) -> None:
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    # --- content

    def _wrong(self) -> str:
        """ "" when size and every checksum that is known are right."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self.file.size:
            return f"got {size} bytes, want {self.file.size}"
        for name in ("sha256", "md5"):
            want = getattr(self.file, name)
            if want and (got := _digest(self.path, name)) != want:
                return f"{name} is {got[:12]}..., want {want[:12]}..."
        return ""

    def _forgiven(self) -> bool:
        """The store's "MD5" is no checksum of the content (encrypted with a key of its own), and nothing else is known."""
        size_is_right = self.path.exists() and self.path.stat().st_size == self.file.size
        if self.file.sha256:
            return (
                size_is_right and _digest(self.path, "sha256") == self.file.sha256 and not self._md5_counts()
            )
        return bool(size_is_right and self.file.md5 and not self._md5_counts())

    def _md5_counts(self) -> bool:
        named = Listed(self.where + self.file.name, self.file.size, self.file.mark, self.file.md5)
        return self.store.md5_counts(named)


def _journal(name: str) -> str:
    parent, slash, last = name.rpartition("/")
    return f"{parent}{slash}.{last}.ranges"


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.new(name, usedforsecurity=False) if name == "md5" else hashlib.new(name)
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()
