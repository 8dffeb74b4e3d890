"""What the long run of worker faults (FASTSERVE_LONG_FAULTS) measured, as JSON: one entry per kind of fault."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import platform
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
    failed_in_flight: int = 0  # with UNAVAILABLE
    answered_beside: int = 0  # requests to other workers of the same engine meanwhile
    failed_beside: list[str] = field(default_factory=list)  # of those: none is to fail

    def figures(self) -> dict[str, Any]:
        ordered = sorted(self.back_s)
        return {
            "rounds": len(ordered),
            "back_p50_s": round(statistics.median(ordered), 3),
            "back_p99_s": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
            "back_most_s": round(ordered[-1], 3),
            f"back_within_{self.within_s:g}_s": sum(s <= self.within_s for s in ordered),
            "failed_in_flight": self.failed_in_flight,
            "answered_beside": self.answered_beside,
            "failed_beside": len(self.failed_beside),
        }

    def write(self) -> None:
        """Into the file that FASTSERVE_FAULTS_RESULT names, beside the kinds that it has."""
        name = os.environ.get("FASTSERVE_FAULTS_RESULT")
        if not name:
            return
        path = Path(name)
        with path.open("a+") as file:  # the kinds may run beside one another
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            found = json.loads(file.read() or "{}")
            found["machine"] = {
                "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "load_average": [round(load, 1) for load in os.getloadavg()],
            }
            found.setdefault("kinds", {})[self.kind] = self.figures()
            file.truncate(0)
            file.write(json.dumps(found, indent=1) + "\n")
