"""What lies below a folder, file by file, and whether a version folder is finished or still being written.

A version says that it is finished in one of two ways: with a manifest that names its files and their sizes
(fastserve-manifest.json), or with an empty file `.ready`, written last. One that says nothing is taken when it has not changed
for a while (poll_rules.py). One with `.incomplete` or a file *.part, *.partial, *.tmp in it is not finished, whatever else it
says. A manifest that cannot be read may be half of one: it waits as one that says nothing, and is an error then. Opens no file
but the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.manifest import MANIFEST_FILE, MANIFEST_FILES, MAX_MANIFEST_BYTES, parse_manifest
from fastserve.lifecycle.regular_file import NotRegular, open_regular

MAX_FILES = 100_000  # of one folder; what is beyond them goes unnoticed
READY_FILE = ".ready"
INCOMPLETE_FILE = ".incomplete"
UNFINISHED_SUFFIXES = (".part", ".partial", ".tmp")

# About the files, or made from them; not what is loaded.
_BOOKKEEPING = {READY_FILE, INCOMPLETE_FILE, *MANIFEST_FILES}
_NOT_LOOKED_AT = {"__pycache__"}

# "broken": with a manifest that cannot be read.
Finished = Literal["says so", "does not say", "no", "broken"]


class FileState(NamedTuple):
    name: str  # relative to the folder, with "/"
    size: int
    mtime_ns: int
    ctime_ns: int  # copies may keep the time of modification


def list_files(folder: str | os.PathLike[str], most: int | None = None) -> list[FileState]:
    """By name; links to files count as what they point at, links to folders are not followed. OSError: cannot be read."""
    found: list[FileState] = []
    _walk(os.fspath(folder), "", found, MAX_FILES if most is None else most)
    found.sort()
    return found


def list_model(path: Path) -> list[FileState]:
    """Of a version folder, or of a model that is one file: that file and those beside it with the same stem (model.bin of
    model.xml)."""
    if not path.is_file():
        return list_files(path)
    with os.scandir(path.parent) as entries:
        names = [e.name for e in entries if e.name.rpartition(".")[0] == path.stem and e.is_file()]
    return [file_state(path.parent / name, name) for name in sorted(names)]


def file_state(path: str | os.PathLike[str], name: str) -> FileState:
    try:
        status = os.stat(path)
    except OSError:  # a link to nothing, or to itself
        status = os.lstat(path)
    return FileState(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def content_of(files: Sequence[FileState]) -> list[FileState]:
    """Without what is only about the files."""
    return [file for file in files if file.name not in _BOOKKEEPING]


def finished(folder: str | os.PathLike[str], files: Sequence[FileState]) -> tuple[Finished, str]:
    """Of a version folder with these files; and why it is not."""
    for file in files:
        last = file.name.rpartition("/")[2]
        if last == INCOMPLETE_FILE or last.endswith(UNFINISHED_SUFFIXES):
            return "no", f"there is '{file.name}'"
    sizes = {file.name: file.size for file in files}
    if MANIFEST_FILE in sizes:
        return _as_manifest_says(os.path.join(folder, MANIFEST_FILE), sizes)
    return ("says so", "") if READY_FILE in sizes else ("does not say", "")


def _as_manifest_says(path: str, sizes: dict[str, int]) -> tuple[Finished, str]:
    if sizes[MANIFEST_FILE] > MAX_MANIFEST_BYTES:
        return (
            "broken",
            f"{MANIFEST_FILE} has {sizes[MANIFEST_FILE]} bytes, at most {MAX_MANIFEST_BYTES} are read",
        )
    try:
        with open_regular(path) as file:
            wanted = parse_manifest(file.read())
    except NotRegular:
        return "broken", f"{MANIFEST_FILE} is not a regular file"
    except InvalidArgument as error:
        return "broken", f"{MANIFEST_FILE}: {error}"
    for name, entry in wanted.items():
        if name not in sizes:
            return "no", f"'{name}' of {MANIFEST_FILE} is missing"
        if entry.size is not None and sizes[name] != entry.size:
            return "no", f"'{name}' has {sizes[name]} bytes, {MANIFEST_FILE} says {entry.size}"
    return ("does not say" if any(entry.size is None for entry in wanted.values()) else "says so"), ""


def _walk(folder: str, prefix: str, found: list[FileState], most: int) -> None:
    """By far the most of what a poll costs."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _NOT_LOOKED_AT:
                    folders.append(entry)
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nothing or to itself, or gone just now
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
            found.append(
                FileState(prefix + entry.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            )
    if len(found) > most:
        found.sort()
        del found[most:]
    for entry in sorted(folders, key=lambda entry: entry.name):
        if len(found) < most:
            _walk(entry.path, f"{prefix}{entry.name}/", found, most)
