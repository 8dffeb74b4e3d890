"""Whether the files of a version are those that its manifest names: looked at before every load, on the loader's thread.

`fastserve-manifest.json` or `SHA256SUMS` in the version's folder (manifest.py); where both lie there, both have to be right. A
file's digest is kept as long as its size, times and inode stay, so that a reload reads nothing again. A file that changes between
this look and the load goes unnoticed: checksums tell of accidents and of old copies, not of somebody who may write there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.manifest import (
    MANIFEST_FILE,
    MANIFEST_FILES,
    MAX_MANIFEST_BYTES,
    SUMS_FILE,
    Entry,
    name_problem,
    parse_manifest,
    parse_sums,
)
from fastserve.lifecycle.regular_file import open_regular
from fastserve.lifecycle.version_spec import VersionSpec

MAX_KEPT_DIGESTS = 100_000
SHOWN_DIGITS = 12  # of a digest, in messages
_BLOCK_BYTES = 4 << 20
# A file may change once more within one tick of its file system's clock, and keep its times.
_TOO_YOUNG_S = 2.0

Report = Callable[[float, str], None]  # 0..1 and what is being done, as a load reports it


def verify(spec: VersionSpec, report: Report | None = None) -> None:
    """Returns when nothing speaks against loading it. Raises InvalidArgument: a file is missing, or not what the manifest says;
    or there is no manifest, and `spec.require_manifest`. Blocks while it reads; any thread."""
    if not spec.path:
        return
    folder = folder_of(spec)
    present = [name for name in MANIFEST_FILES if (folder / name).is_file()]
    if not present:
        if spec.require_manifest:
            raise InvalidArgument(
                f"has no {MANIFEST_FILE} or {SUMS_FILE}, which --require-manifest wants (fastserve manifest writes one)"
            )
        return
    named: set[str] = set()
    for name in present:
        entries = read_entries(folder / name)
        named |= entries.keys()
        if problems := check_files(folder, entries, report):
            raise InvalidArgument(f"{name}: {'; '.join(problems)}")
    if spec.require_manifest and (strangers := sorted(set(files_below(folder)) - named)):
        raise InvalidArgument(
            f"{present[0]} does not name '{strangers[0]}', and --require-manifest wants every file named"
        )


def folder_of(spec: VersionSpec) -> Path:
    """The version's folder: a model that is a folder itself lies in it, or is it."""
    path = Path(spec.path)
    is_version = path.name.partition("-")[0] == str(spec.version)  # of a remote one: 2-0a1b..
    return path if path.is_dir() and is_version else path.parent


def read_entries(path: Path) -> dict[str, Entry]:
    """Of a manifest of either kind. Raises InvalidArgument."""
    try:
        size = path.stat().st_size
        if size > MAX_MANIFEST_BYTES:
            raise InvalidArgument(f"{path.name} has {size} bytes, at most {MAX_MANIFEST_BYTES} are read")
        with open_regular(path) as file:
            text = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path.name} cannot be read: {error}") from None
    try:
        return parse_manifest(text) if path.name == MANIFEST_FILE else parse_sums(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{path.name}: {error}") from None


def check_files(folder: Path, entries: Mapping[str, Entry], report: Report | None = None) -> list[str]:
    """Everything that is wrong."""
    problems = []
    total = sum(_size(folder / name) for name in entries) or 1
    done = 0
    for name, entry in sorted(entries.items()):
        path = folder / name
        try:
            size = path.stat().st_size
            if entry.size is not None and size != entry.size:
                problems.append(f"'{name}' has {size} bytes, want {entry.size}")
            elif entry.sha256:
                if report is not None:
                    report(done / total, f"verifying {name}")
                if (got := sha256_of(path)) != entry.sha256:
                    problems.append(
                        f"'{name}' has sha256 {got[:SHOWN_DIGITS]}, want {entry.sha256[:SHOWN_DIGITS]}"
                    )
            done += size
        except FileNotFoundError:
            problems.append(f"'{name}' is missing")
        except OSError as error:
            problems.append(f"'{name}' cannot be read: {error.strerror or error}")
    return problems


def manifest_of(folder: Path, report: Report | None = None) -> dict[str, Entry]:
    """What a manifest of a folder has to say. Raises InvalidArgument: a file's name is none that a manifest may have."""
    entries = {}
    names = files_below(folder)
    sizes = {name: (folder / name).stat().st_size for name in names}
    total, done = sum(sizes.values()) or 1, 0
    for name in names:
        if wrong := name_problem(name):
            raise InvalidArgument(f"'{folder / name}': {wrong}")
        began = done

        def step(count: int, name: str = name, began: int = began) -> None:
            if report is not None:
                report((began + count) / total, name)

        entries[name] = Entry(sizes[name], sha256_of(folder / name, step))
        done += sizes[name]
    return entries


def files_below(folder: Path) -> list[str]:
    """Names with "/", sorted; hidden files and folders, compiled Python and the manifests of the folder itself are left out."""
    names = []
    for at, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        inner = os.path.relpath(at, folder)
        names += [name if inner == "." else f"{inner}/{name}" for name in files if not name.startswith(".")]
    return sorted(name for name in names if name not in MANIFEST_FILES)


def sha256_of(path: Path, step: Callable[[int], None] | None = None) -> str:
    """Hex. `step` hears how many bytes have been read; not called when the digest is known already. OSError: cannot be read."""
    with open_regular(path) as file:
        key = _key(os.fstat(file.fileno()))
        if (known := _digests.get(key)) is not None:
            return known
        digest = hashlib.sha256()
        block = bytearray(_BLOCK_BYTES)
        view = memoryview(block)
        count = 0
        while got := file.readinto(block):
            digest.update(view[:got])
            count += got
            if step is not None:
                step(count)
        status = os.fstat(file.fileno())
    found = digest.hexdigest()
    if _key(status) == key and time.time() - max(status.st_mtime, status.st_ctime) > _TOO_YOUNG_S:
        _digests.keep(key, found)
    return found


class _Digests:
    """Of files as they are, the least recently used forgotten first. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, ...], str] = OrderedDict()

    def get(self, key: tuple[int, ...]) -> str | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def keep(self, key: tuple[int, ...], digest: str) -> None:
        with self._lock:
            self._kept[key] = digest
            if len(self._kept) > MAX_KEPT_DIGESTS:
                self._kept.popitem(last=False)


_digests = _Digests()


def _key(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
