"""Whether the files of a version have changed since they were loaded.

A load by request, a reload or a poll loads a version again when its fingerprint says something else: names, sizes and times.
The time of change (ctime) is in it, because copies may keep the time of modification. Where only times differ (`touch`, the
same files copied again) the content decides, as far as it was read before: `Fingerprints` remembers a digest of it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastserve.lifecycle.regular_file import NotRegular, open_regular
from fastserve.lifecycle.version_files import FileState, content_of, list_files, list_model

EAGER_BYTES = 4 << 20  # a version of no more is read when it is seen first
MAX_BYTES = 1 << 30  # of larger ones times alone decide
_CHUNK = 1 << 20


def fingerprint(folder: Path) -> str:
    """Of everything below `folder`; links to files count as what they point at. "" for an empty folder. OSError: cannot be
    read."""
    return fingerprint_of(content_of(list_files(folder)))


def fingerprint_of(files: Sequence[FileState]) -> str:
    """ "" for no files."""
    found = (f"{f.name}\0{f.size} {f.mtime_ns} {f.ctime_ns}" for f in files)
    return _hashed("\0".join(found).encode("utf-8", "surrogateescape")) if files else ""


@dataclass
class _Known:
    files: list[FileState]  # as they were last
    fingerprint: str  # of the first files with this content
    digest: str = ""  # of the content; "": not read


class Fingerprints:
    """Remembers content, for as many folders as there are versions. Blocking; any thread."""

    def __init__(self, eager_bytes: int = EAGER_BYTES, max_bytes: int = MAX_BYTES) -> None:
        self._eager_bytes = eager_bytes
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self.read_bytes = 0  # since the start

    def of(self, path: Path, files: Sequence[FileState] | None = None) -> str:
        """As `fingerprint` has it, but what it was before where nothing but times has changed. `path`: a version folder, or a
        model that is one file. `files`: its files, where they were listed already. OSError: cannot be read."""
        now = content_of(list_model(path) if files is None else files)
        key = os.fspath(path)
        with self._lock:
            known = self._known.get(key)
        if known is not None and known.files == now:
            return known.fingerprint
        same = known is not None and _names_and_sizes(known.files) == _names_and_sizes(now)
        size = sum(file.size for file in now)
        digest = ""
        if (known is not None and same and known.digest) or size <= self._eager_bytes:
            digest = self._digest(path, now) if size <= self._max_bytes else ""
        said = fingerprint_of(now)
        if known is not None and same and digest and digest == known.digest:
            said = known.fingerprint
        with self._lock:
            self._known[key] = _Known(now, said, digest)
        return said

    def learn(self, budget_bytes: int) -> bool:
        """Reads what was too large to be read at first sight, one version at least and until the budget is spent; whether
        there is more. For moments in which nothing else is to be done."""
        for key, known in list(self._known.items()):
            size = sum(file.size for file in known.files)
            if known.digest or size > self._max_bytes:
                continue
            if budget_bytes <= 0:
                return True
            budget_bytes -= size
            try:
                unchanged = content_of(list_model(Path(key))) == known.files
                known.digest = (self._digest(Path(key), known.files) if unchanged else "") or "unread"
            except OSError:
                known.digest = "unread"  # and never equal to one that was
        return False

    def keep(self, paths: set[str]) -> None:
        """Forgets the others."""
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if key in paths}

    def _digest(self, path: Path, files: Sequence[FileState]) -> str:
        """ "" when they change while they are read."""
        total = hashlib.blake2b(digest_size=16)
        base = path.parent if path.is_file() else path
        for file in files:
            total.update(f"{file.name}\0{file.size}\0".encode("utf-8", "surrogateescape"))
            try:
                with open_regular(base / file.name) as opened:
                    while chunk := opened.read(_CHUNK):
                        total.update(chunk)
                        self.read_bytes += len(chunk)
            except (FileNotFoundError, NotRegular):  # a link to nothing, a pipe
                continue
        return total.hexdigest() if content_of(list_model(path)) == list(files) else ""


def _names_and_sizes(files: Sequence[FileState]) -> list[tuple[str, int]]:
    return [(file.name, file.size) for file in files]


def _hashed(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()
