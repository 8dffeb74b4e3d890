"""Whether the files of a version have changed since they were loaded: names, sizes and times, not their content.

A load by request loads a version again when this says something else. The time of change (ctime) is in it, because copies
may keep the time of modification.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MAX_FILES = 100_000  # of one version folder; what is beyond them goes unnoticed


def fingerprint(folder: Path) -> str:
    """Of everything below `folder`; links to files count as what they point at. "" for an empty folder. OSError: cannot be
    read."""
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in sorted(files):
            if len(found) == MAX_FILES:
                return _digest(found)
            path = os.path.join(parent, name)
            found.append(f"{os.path.relpath(path, folder)}\0{_size_and_time(path)}")
    return _digest(found) if found else ""


def _size_and_time(path: str) -> str:
    try:
        status = os.stat(path)
    except FileNotFoundError:  # a link to nothing
        status = os.lstat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(found: list[str]) -> str:
    return hashlib.blake2b("\0".join(found).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _raise(error: OSError) -> None:
    raise error
