"""Where a remote repository lies on this machine. Looks like a repository in Triton's layout to whoever scans it:

    <cache>/<url>-<hash>/                   0700
      digits -> .models/digits/<digest>     swapped by one rename: configuration and versions change together
      .models/digits/<digest>/              links only: config.pbtxt, 1, 2 -> ../../../.data/digits/...
      .data/digits/2-<digest>/model.onnx    complete, verified, never changed again
      .partial/digits/2-<digest>/           what is downloaded; goes on after a restart, as its name says of which content
      .uses/<process>-<number>              locked while a process lives: what it may still read
      .lock                                 held while one process changes anything above

A load that follows a link once and reads below the folder it led to (as model_folder does) sees one version and no mixture.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fastserve.errors import FailedPrecondition, PermissionDenied
from fastserve.lifecycle.remote.listing import Part

DATA, PARTIAL, MODELS, USES, LOCK = ".data", ".partial", ".models", ".uses", ".lock"


class Cache:
    """One repository's folder. Blocking; whoever changes something holds `locked()`."""

    def __init__(self, root: Path) -> None:
        """Makes it. PermissionDenied, FailedPrecondition: it cannot be made, or others may write to it."""
        self.root = root
        make_private(root)
        for name in (DATA, PARTIAL, MODELS, USES):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        self._uses: int | None = None

    @contextlib.contextmanager
    def locked(self, *, wait: bool = True) -> Iterator[bool]:
        """Yields whether it is locked; with `wait` always True."""
        lock = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    # --- versions

    def data(self, part: Part) -> Path:
        return self.root / DATA / part.model / part.folder

    def partial(self, part: Part) -> Path:
        return self.root / PARTIAL / part.model / part.folder

    def install(self, part: Part) -> None:
        """Its complete partial folder becomes its data."""
        source, target = self.partial(part), self.data(part)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        for folder, _, _ in os.walk(source):
            sync_folder(Path(folder))
        source.rename(target)
        os.utime(target)
        sync_folder(target.parent)

    # --- what is shown

    def current(self) -> dict[str, Path]:
        """The models that are shown, and where their links lead."""
        with os.scandir(self.root) as entries:
            links = [entry.name for entry in entries if entry.is_symlink() and not entry.name.startswith(".")]
        return {name: self.root / os.readlink(self.root / name) for name in links}

    def linked(self, model: str) -> dict[str, str]:
        """What a model shows -> the data folder that it is in: {"1": "1-0a..", "config.pbtxt": "config-7f.."}."""
        shown: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root / model) as entries:
            for entry in entries:
                shown[entry.name] = os.readlink(entry.path).split("/")[
                    5
                ]  # ../../../.data/<model>/<folder>/...
        return shown

    def show(self, model: str, links: Mapping[str, str]) -> bool:
        """`links`: name -> place below .data/<model>. Returns whether that is new."""
        text = "\n".join(f"{name}\0{place}" for name, place in sorted(links.items()))
        digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
        target = f"{MODELS}/{model}/{digest}"
        link = self.root / model
        if link.is_symlink() and os.readlink(link) == target:
            return False
        folder = self.root / target
        if not folder.is_dir():
            fresh = folder.parent / f".new-{secrets.token_hex(8)}"
            fresh.mkdir(mode=0o700, parents=True)
            for name, place in links.items():
                os.symlink(f"../../../{DATA}/{model}/{place}", fresh / name)
            sync_folder(fresh)
            fresh.rename(folder)
        os.utime(folder)
        new = self.root / f".link-{secrets.token_hex(8)}"
        os.symlink(target, new)
        os.replace(new, link)
        sync_folder(self.root)
        return True

    def hide(self, model: str) -> None:
        (self.root / model).unlink(missing_ok=True)

    # --- uses

    def use(self, folders: Iterable[str]) -> None:
        """This process may read these ("digits/1-0a.."), and no others; until it ends."""
        if self._uses is None:
            path = self.root / USES / f"{os.getpid()}-{secrets.token_hex(4)}"
            self._uses = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._uses, fcntl.LOCK_EX)
        os.ftruncate(self._uses, 0)
        os.pwrite(self._uses, json.dumps(sorted(set(folders))).encode(), 0)

    def used(self) -> tuple[set[str], bool]:
        """What living processes use, and whether there is one. Forgets the dead."""
        folders: set[str] = set()
        alive = False
        for path in (self.root / USES).iterdir():
            with contextlib.suppress(FileNotFoundError), path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    alive = True
                    folders.update(json.loads(file.read() or "[]"))
                else:
                    path.unlink(missing_ok=True)
        return folders, alive

    def close(self) -> None:
        """Uses nothing any more."""
        if self._uses is not None:
            os.close(self._uses)
            self._uses = None


def make_private(folder: Path) -> None:
    """Makes a folder of ours alone; refuses one that others may write to: they could put models there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise PermissionDenied(
            f"--repository-cache-dir: cannot make '{folder}': {error.strerror or error}"
        ) from None
    if status.st_uid not in {os.geteuid(), 0} or status.st_mode & 0o022:
        raise FailedPrecondition(
            f"--repository-cache-dir: '{folder}' belongs to another user or others may write to it: chmod 700, or name another"
        )


def sync_folder(folder: Path) -> None:
    """So that what was renamed into it is there after a power cut."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def remove_tree(folder: Path) -> None:
    """First out of sight, so that nobody sees half of it."""
    gone = folder.with_name(f".gone-{secrets.token_hex(8)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
