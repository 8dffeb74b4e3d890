"""Plans that were built before, in a folder: one file for each key, which names everything that the plan depends on
(onnx_plan.py).

    offset 0   magic "FSPLAN1\\n"
    offset 8   bytes of the content, 64 bits
    offset 16  its SHA-256
    offset 48  the content

What is read has been compared with its size and hash before a library sees it: plans are programs, and half of one is not to
be run. That keeps accidents out and not people: whoever can write into the folder can run code in the server, so it has to be
the user's own. A file is written beside its place and renamed when it is on the disk. Thread: any; several processes may
share a folder. Locks are those of the system (flock), one for each key."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastserve import errors

logger = logging.getLogger("fastserve.gpu.tensorrt")

MAGIC = b"FSPLAN1\n"
_HEAD = struct.Struct("<8sQ32s")
HEAD_BYTES = _HEAD.size
_SUFFIX, _LOCK, _PART = ".plan", ".lock", ".part"


def users_folder() -> Path | None:
    """By the XDG base directory specification; None: the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "fastserve" / "plans"
    except RuntimeError:
        return None


def open_cache(asked: str, limit_bytes: int) -> PlanCache | None:
    """`asked`: parameter plan_cache. None: there is to be none, or the user has no folder for one.

    FailedPrecondition: the folder that was named cannot be used."""
    if asked == "none":
        return None
    folder = users_folder() if asked == "auto" else Path(asked)
    try:
        if folder is None:
            raise errors.FailedPrecondition("the user has no home folder")
        return PlanCache(folder, limit_bytes)
    except errors.FailedPrecondition as error:
        if asked != "auto":
            raise
        logger.warning("plans are built at each start: %s", error)
        return None


class PlanCache:
    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Makes the folder. FailedPrecondition: it cannot be made, or others may write there."""
        self.folder, self.limit_bytes = folder, limit_bytes
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError as error:
            raise errors.FailedPrecondition(f"plan_cache: '{folder}': {error.strerror or error}") from None
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise errors.FailedPrecondition(
                f"plan_cache: '{folder}' has to belong to the server's user, and nobody else may write there: plans are programs"
            )
        if not os.access(folder, os.W_OK | os.X_OK):
            raise errors.FailedPrecondition(f"plan_cache: '{folder}' cannot be written")

    def find(self, key: str) -> memoryview | None:
        """The content, whole and as it was stored. What is broken is removed, with a warning."""
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("plan cache: '%s' cannot be read: %s", path.name, error.strerror or error)
            return None
        if wrong := _wrong(data):
            logger.warning("plan cache: '%s' %s: it is built again", path.name, wrong)
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)  # what is used stays
        return memoryview(data)[HEAD_BYTES:]

    def store(self, key: str, content: bytes | memoryview) -> None:
        """OSError: there is no room."""
        path = self.folder / f"{key}{_SUFFIX}"
        view = memoryview(content).cast("B")
        handle, part = tempfile.mkstemp(prefix=f"{key[:40]}-", suffix=_PART, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_HEAD.pack(MAGIC, view.nbytes, hashlib.sha256(view).digest()))
                file.write(view)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        _sync_folder(self.folder)
        self.collect(keep=path.name)

    @contextmanager
    def locked(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """One builder for a key at a time, in all processes; `waiting` is called when another one has it."""
        path = self.folder / f"{key}{_LOCK}"
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiting()
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_still(file, path):
                    continue  # whoever had it has removed it
                try:
                    yield
                finally:
                    with suppress(OSError):
                        path.unlink()
                    # Closing would not do, should a process have been forked meanwhile that lives on.
                    fcntl.flock(file, fcntl.LOCK_UN)
                return
            finally:
                os.close(file)

    def collect(self, keep: str = "") -> None:
        """Removes what was not used for longest until the rest is within the limit, and what a builder that died left behind."""
        found = []
        for entry in os.scandir(self.folder):
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_SUFFIX):
                    found.append((status.st_mtime_ns, status.st_size, entry.name))
                elif entry.name.endswith(_PART) and status.st_mtime_ns < _long_ago():
                    os.unlink(entry.path)
        over = sum(size for _, size, _ in found) - self.limit_bytes
        for _, size, name in sorted(found):
            if over <= 0:
                return
            if name == keep:
                continue
            logger.info("plan cache: '%s' goes: more than %d bytes", name, self.limit_bytes)
            with suppress(OSError):
                os.unlink(self.folder / name)
                over -= size


def _wrong(data: bytes) -> str:
    if len(data) < HEAD_BYTES:
        return f"is cut off: got {len(data)} bytes, want more than {HEAD_BYTES}"
    magic, size, digest = _HEAD.unpack_from(data)
    if magic != MAGIC:
        return "is no file of this cache"
    if len(data) - HEAD_BYTES != size:
        what = "is cut off" if len(data) - HEAD_BYTES < size else "has more at its end than belongs to it"
        return f"{what}: got {len(data) - HEAD_BYTES} bytes, want {size}"
    if hashlib.sha256(memoryview(data)[HEAD_BYTES:]).digest() != digest:
        return "is not what was stored (SHA-256)"
    return ""


def _is_still(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _long_ago() -> int:
    """A day: no build of ours takes longer to write its file."""
    import time

    return time.time_ns() - 86_400 * 1_000_000_000


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
