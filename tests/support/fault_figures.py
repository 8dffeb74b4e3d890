"""What the long runs of faults measured, as JSON: of workers one entry per kind of fault (FASTSERVE_LONG_FAULTS), of killed
clients one per kind of client (TEST_LOCAL_KILLS, TEST_SHM_KILLS)."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
import re
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Faults:
    """Of one kind: times in seconds from the death, or from the hang's detection, to the next answer of the same model."""

    kind: str
    within_s: float
    back_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # that the new process took for it, of each round
    no_cpu_s: list[float] = field(default_factory=list)  # and how long it was ready and got no CPU
    failed_in_flight: int = 0  # with UNAVAILABLE
    answered_beside: int = 0  # requests to other workers of the same engine meanwhile
    failed_beside: list[str] = field(default_factory=list)  # of those: none is to fail

    def back(self, seconds: float, pid: int) -> None:
        """The worker `pid` took over."""
        self.back_s.append(seconds)
        ran, waited = _scheduled(pid)
        self.cpu_s.append(ran)
        self.no_cpu_s.append(waited)

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.back_s)
        return {
            "rounds": len(ordered),
            "back_p50_s": round(statistics.median(ordered), 3),
            "back_p99_s": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
            "back_most_s": round(ordered[-1], 3),
            "start_cpu_p50_s": round(statistics.median(self.cpu_s), 3),
            "slowest": [
                self._round(i) for i in sorted(range(len(self.back_s)), key=lambda i: -self.back_s[i])[:3]
            ],
            f"back_within_{self.within_s:g}_s": sum(s <= self.within_s for s in ordered),
            "failed_in_flight": self.failed_in_flight,
            "answered_beside": self.answered_beside,
            "failed_beside": len(self.failed_beside),
            "back_ms": [round(s * 1000) for s in self.back_s],
            "cpu_ms": [round(s * 1000) for s in self.cpu_s],
            "no_cpu_ms": [round(s * 1000) for s in self.no_cpu_s],
        }

    def _round(self, index: int) -> dict[str, float]:
        return {
            "back_s": round(self.back_s[index], 3),
            "of_it_cpu_s": round(self.cpu_s[index], 3),
            "of_it_ready_without_a_cpu_s": round(self.no_cpu_s[index], 3),
        }

    def _add(self, earlier: dict[str, Any]) -> None:
        """Rounds of an earlier run, which wrote `figures`."""
        self.back_s = [ms / 1000 for ms in earlier["back_ms"]] + self.back_s
        self.cpu_s = [ms / 1000 for ms in earlier["cpu_ms"]] + self.cpu_s
        self.no_cpu_s = [ms / 1000 for ms in earlier["no_cpu_ms"]] + self.no_cpu_s
        self.failed_in_flight += earlier["failed_in_flight"]
        self.answered_beside += earlier["answered_beside"]
        self.failed_beside = ["earlier"] * earlier["failed_beside"] + self.failed_beside

    def write(self) -> None:
        """Into the file that FASTSERVE_FAULTS_RESULT names, beside the kinds and behind the rounds that it has."""
        name = os.environ.get("FASTSERVE_FAULTS_RESULT")
        if not name:
            return
        path = Path(name)
        with path.open("a+") as file:  # the kinds may run beside one another
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = json.loads(file.read() or "{}")
            found["machine"] = _machine()
            kinds = found.setdefault("kinds", {})
            if self.kind in kinds:
                self._add(kinds[self.kind])
            kinds[self.kind] = self.figures()
            file.truncate(0)
            file.write(_written(found))


def write_killed_clients(kind: str, figures: dict[str, Any]) -> None:
    """Into the file that TEST_CLIENT_FAULTS_RESULT names, instead of what it has of this kind."""
    name = os.environ.get("TEST_CLIENT_FAULTS_RESULT")
    if not name:
        return
    with Path(name).open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = json.loads(file.read() or "{}")
        found["machine"] = _machine()
        found.setdefault("kinds", {})[kind] = figures
        file.truncate(0)
        file.write(_written(found))


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def _scheduled(pid: int) -> tuple[float, float]:
    """Seconds that its main thread ran, and was ready to run and had to wait."""
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9


def _written(found: dict[str, Any]) -> str:
    """Lists of numbers on one line each."""
    text = json.dumps(found, indent=1)
    return re.sub(r"\[\s+([-\d.,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"
