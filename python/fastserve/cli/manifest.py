"""Writes fastserve-manifest.json: names, sizes and SHA-256 of the files of version folders, which `serve` checks before a load.

Exit code 0: written, or (--verify) everything is as it says; 1: something is not; 2: a folder cannot be read or written.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastserve.lifecycle import integrity
from fastserve.lifecycle.manifest import MANIFEST_FILE, MANIFEST_FILES, write_manifest

EXAMPLES = """\
examples:
  fastserve manifest models/digits/1             write models/digits/1/fastserve-manifest.json
  fastserve manifest --all models                of every version of every model
  fastserve manifest --verify --all models       compare, change nothing
  fastserve manifest --index models              models/fastserve-manifest.json: a repository for a web server
"""

PROGRESS_S = 0.2
_NO, _WRONG = 1, 2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="+", type=Path, metavar="FOLDER", help="version folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--all", action="store_true", help="FOLDER is a repository or a model: every version folder below it"
    )
    which.add_argument(
        "--index",
        action="store_true",
        help="FOLDER is a repository: one manifest for all of it, as http(s):// needs",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare with the manifests that are there; change nothing"
    )


def run(args: argparse.Namespace) -> int:
    code = 0
    for folder in args.folder:
        if not folder.is_dir():
            print(f"{folder}: is not a folder", file=sys.stderr)
            code = _WRONG
            continue
        found = list(_version_folders(folder)) if args.all else [folder]
        if not found:
            print(f"{folder}: has no version folder (a folder named 1, 2, ...)", file=sys.stderr)
            code = max(code, _NO)
        for one in found:
            code = max(code, _verify(one) if args.verify else _write(one))
    return code


def _version_folders(folder: Path) -> Iterator[Path]:
    """Those of a model, or of every model of a repository; in the order of their numbers."""
    for parent in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        numbers = (
            path for path in parent.iterdir() if path.is_dir() and path.name.isascii() and path.name.isdigit()
        )
        yield from sorted(numbers, key=lambda path: int(path.name))


def _write(folder: Path) -> int:
    try:
        with _Line() as line:
            entries = integrity.manifest_of(folder, line.report)
        fresh = folder / f".{MANIFEST_FILE}.{os.getpid()}"
        fresh.write_text(write_manifest(entries))
        os.replace(fresh, folder / MANIFEST_FILE)
    except (OSError, ValueError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return _WRONG
    total = sum(entry.size or 0 for entry in entries.values())
    print(f"{folder / MANIFEST_FILE}: {len(entries)} files, {total / 1e6:.1f} MB")
    return 0


def _verify(folder: Path) -> int:
    present = [name for name in MANIFEST_FILES if (folder / name).is_file()]
    problems = [] if present else [f"has no {' or '.join(MANIFEST_FILES)}"]
    named: set[str] = set()
    with _Line() as line:
        for name in present:
            try:
                entries = integrity.read_entries(folder / name)
            except ValueError as error:
                problems.append(str(error))
                continue
            named |= entries.keys()
            problems += [
                f"{name}: {problem}" for problem in integrity.check_files(folder, entries, line.report)
            ]
    for problem in problems:
        print(f"{folder}: {problem}")
    if not problems:
        extra = len(set(integrity.files_below(folder)) - named)
        print(f"{folder}: {len(named)} files are right" + (f", {extra} more are not named" if extra else ""))
    return _NO if problems else 0


class _Line:
    """Progress on one line of a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = False
        self._next = time.monotonic() + PROGRESS_S

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    @property
    def report(self) -> Callable[[float, str], None] | None:
        return self._say if sys.stderr.isatty() else None

    def _say(self, fraction: float, what: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PROGRESS_S
            self._shown = True
            print(f"\r\x1b[K{100 * fraction:3.0f} %  {what[:60]}", end="", file=sys.stderr, flush=True)
