"""The files that loads by request brought along: in a private folder, in memory where there is such a file system, for as long
as a version of theirs is wanted or serves.

The folder belongs to this process: mode 0700, named fastserve-files-UID-PID-*, with a locked file in it. What a process that died
left behind is recognized by the lock that nobody holds any more, and removed at the next start.

Blocking; one thread at a time for each model.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from fastserve.errors import ResourceExhausted

logger = logging.getLogger("fastserve.lifecycle")

MEMORY = Path("/dev/shm")
LOCK = ".lock"
MAX_BYTES = 1 << 30  # of all models together
_UNFINISHED_S = 60.0  # a folder without its lock file that is older than that will never get one


class RequestFiles:
    """`store` writes the files of one load, `keep` removes those of a model that nothing uses any more."""

    def __init__(self, max_bytes: int = MAX_BYTES, parents: Collection[Path] = ()) -> None:
        """`parents`: where the folder may lie, the first one with room is taken; by default /dev/shm and the folder for
        temporary files."""
        self._max_bytes = max_bytes
        self._parents = tuple(parents) or (MEMORY, Path(tempfile.gettempdir()))
        self._folder: Path | None = None
        self._lock_fd = -1
        self._guard = threading.Lock()
        self._sizes: dict[Path, int] = {}
        self._roots: dict[str, set[Path]] = {}
        self._number = 0

    @property
    def held_bytes(self) -> int:
        """Of all models together."""
        with self._guard:
            return sum(self._sizes.values())

    def store(self, model: str, files: Mapping[str, bytes]) -> Path:
        """A folder that has nothing but `model`'s folder with these files: a repository. ResourceExhausted: too many bytes,
        or the file system is full. `files`: paths that check_override has seen."""
        size = sum(map(len, files.values()))
        root = self._reserved(model, size)
        try:
            for path, content in files.items():
                file = root / model / path
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with open(fd, "wb") as out:
                    out.write(content)
        except OSError as error:
            self._remove(model, root)
            raise ResourceExhausted(
                f"the files of model '{model}' ({size} bytes) cannot be kept: {os.strerror(error.errno or 0)}"
            ) from None
        return root

    def roots(self, model: str) -> frozenset[Path]:
        """What `store` made for the model and is still there."""
        with self._guard:
            return frozenset(self._roots.get(model, ()))

    def keep(self, model: str, used: Collection[str]) -> None:
        """Removes what `store` made for the model, except where one of the paths `used` lies."""
        for root in self.roots(model):
            inside = f"{root}{os.sep}"
            if not any(path.startswith(inside) for path in used):
                self._remove(model, root)

    def close(self) -> None:
        """Removes everything."""
        with self._guard:
            folder, self._folder = self._folder, None
            self._sizes.clear()
            self._roots.clear()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(self._lock_fd)

    def sweep(self) -> int:
        """Removes what processes of this user left behind that are not there any more; how many folders."""
        return sum(
            _is_left_over(path) and _removed(path) for parent in self._parents for path in _ours(parent)
        )

    def _reserved(self, model: str, size: int) -> Path:
        with self._guard:
            held = sum(self._sizes.values())
            if held + size > self._max_bytes:
                raise ResourceExhausted(
                    f"the files of model '{model}' have {size} bytes and those of other loads {held}: "
                    f"want at most {self._max_bytes} together (--load-file-bytes)"
                )
            if self._folder is None:
                self._folder, self._lock_fd = self._made(size)
            self._number += 1
            root = self._folder / str(self._number)
            self._sizes[root] = size
            self._roots.setdefault(model, set()).add(root)
            return root

    def _made(self, size: int) -> tuple[Path, int]:
        parent = next((p for p in self._parents if _has_room(p, size)), self._parents[-1])
        try:
            folder = Path(
                tempfile.mkdtemp(prefix=f"{_prefix()}{os.getpid()}-", dir=parent)
            ).resolve()  # mode 0700
            fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ResourceExhausted(
                f"no folder for files of requests: {os.strerror(error.errno or 0)}"
            ) from None
        return folder, fd

    def _remove(self, model: str, root: Path) -> None:
        shutil.rmtree(root, ignore_errors=True)
        with self._guard:
            self._sizes.pop(root, None)
            roots = self._roots.get(model, set())
            roots.discard(root)
            if not roots:
                self._roots.pop(model, None)


def _prefix() -> str:
    return f"fastserve-files-{os.getuid()}-"


def _has_room(folder: Path, size: int) -> bool:
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK) and room.f_bavail * room.f_frsize >= 2 * size


def _ours(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(_prefix())
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.getuid()
            ]
    except OSError:
        return []


def _is_left_over(folder: Path) -> bool:
    try:
        fd = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            return time.time() - folder.stat().st_mtime > _UNFINISHED_S
        return False
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its maker creates the file and locks it right after: a new one is not left over yet.
        return time.time() - os.fstat(fd).st_mtime > 1.0
    except OSError:
        return False
    finally:
        os.close(fd)


def _removed(folder: Path) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    logger.info("removed %s: a server that is not there any more left it behind", folder)
    return True
