"""A control group with little memory: who allocates more in it is killed by the kernel, as on a host that runs out."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


class NotPossible(Exception):
    """Why there can be none: no right to make one, or no memory controller."""


@contextlib.contextmanager
def limited_memory(limit_bytes: int) -> Iterator[Path]:
    """The group's folder: a process that writes "0" to its cgroup.procs is in it, with what it allocates from then on."""
    folder, limit = _place()
    try:
        folder.mkdir()
        (folder / limit).write_text(str(limit_bytes))
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise NotPossible(str(error)) from None
    try:
        yield folder
    finally:
        until = time.monotonic() + 5
        while folder.exists() and time.monotonic() < until:  # not while a process is in it
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.01)


def kills(folder: Path) -> int:
    """How many processes the kernel killed there."""
    for name in ("memory.oom_control", "memory.events"):
        if (file := folder / name).exists():
            words = dict(line.split() for line in file.read_text().splitlines())
            return int(words.get("oom_kill", 0))
    return 0


def _place() -> tuple[Path, str]:
    name = f"fastserve-test-{os.getpid()}"
    groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/") / name, "memory.limit_in_bytes"
    for _, controllers, path in groups:
        # Version 2: beside this process's own group, which may not have both processes and groups.
        if not controllers:
            parent = (ROOT / path.lstrip("/")).parent
            if "memory" in _words(parent / "cgroup.subtree_control"):
                return parent / name, "memory.max"
    raise NotPossible("no memory controller of control groups")


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
