"""What the kernel says about a process that runs: its memory, and the CPU time of each of its threads."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

IO_THREAD = re.compile(r"fs-io\d+$")  # csrc/frontend/io_threads.cc


def resident_bytes(pid: int) -> int:
    """Resident memory, exact (smaps_rollup; the counters of /proc/PID/status lag behind). Kernel memory, such as socket
    buffers, is not in it."""
    found = re.search(r"^Rss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    assert found is not None
    return int(found[1]) << 10


def cpu_s_by_thread(pid: int) -> dict[str, float]:
    """{thread name: user + system seconds} by the scheduler's clock; threads of one name are added up."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile
            name = (task / "comm").read_text().strip()
            found[name] = found.get(name, 0.0) + int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def cpu_s(pid: int) -> float:
    """Of all threads, those that ended included."""
    return time.clock_gettime(_process_clock(pid))


def _process_clock(pid: int) -> int:
    """The clock of clock_getcpuclockid(3), which Python lends only for its own process: ~pid << 3 | CPUCLOCK_SCHED."""
    return (~pid << 3) | 2


def io_threads(pid: int) -> int:
    """How many native I/O threads a fastserve process has; 0: the uvloop loop owns the sockets."""
    return sum(
        1
        for task in Path(f"/proc/{pid}/task").iterdir()
        if IO_THREAD.match((task / "comm").read_text().strip())
    )
