"""What the machine does, from /proc. Of the machine and not of a container, as Triton has it."""

from __future__ import annotations

from pathlib import Path

_IDLE, _IOWAIT, _GUEST = 3, 4, 8  # columns of the "cpu" line; guest time is in user time already


class Host:
    """Thread: one. None where the machine has no such file."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._last = (0, 0)  # busy, all; ticks since boot

    def cpu_utilization(self) -> float | None:
        """Busy share of all CPUs since the last call, 0..1; the first time since boot."""
        try:
            line = (self._proc / "stat").read_text().partition("\n")[0]
        except OSError:
            return None
        ticks = [int(column) for column in line.split()[1:]][:_GUEST]
        total = sum(ticks)
        busy = total - ticks[_IDLE] - ticks[_IOWAIT]
        last_busy, last_total = self._last
        self._last = (busy, total)
        return max(0.0, busy - last_busy) / (total - last_total) if total > last_total else 0.0

    def memory_bytes(self) -> tuple[int, int] | None:
        """All, and all that is not available."""
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
        except OSError:
            return None
        kilobytes = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        total = kilobytes["MemTotal"] * 1024
        return total, total - kilobytes["MemAvailable"] * 1024
