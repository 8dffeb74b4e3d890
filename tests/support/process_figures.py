"""What a process holds, out of /proc: memory, file descriptors, processor time."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figures:
    rss_bytes: int
    descriptors: int
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> Figures:
        folder = Path(f"/proc/{pid}")
        pages = int((folder / "statm").read_text().split()[1])
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks = int(stat[11]) + int(stat[12])
        return cls(
            pages * resource.getpagesize(),
            len(os.listdir(folder / "fd")),
            ticks / os.sysconf("SC_CLK_TCK"),
        )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def raise_descriptor_limit(wanted: int) -> int:
    """Of this process and those that it starts from now on; how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
