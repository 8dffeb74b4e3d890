"""gpu-check.json: written anew after each row, so that what was cut off keeps what ran; and the table for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from tools.gpu_check.rows import BY_NAME

SIMULATED = "SIMULATED CUDA DRIVER, not a GPU: only that the rows run is shown, no figure means anything"


class Results:
    """`rows`: {"row", "status": passed|failed|skipped|error, "reason", "floors", "broken", "figures", "seconds"}."""

    def __init__(self, folder: Path, *, simulated: bool, short: bool) -> None:
        self.path = folder / "gpu-check.json"
        self.rows: list[dict[str, Any]] = []
        self._about = {
            "what": SIMULATED if simulated else "tools/gpu-check",
            "simulated": simulated,
            "short": short,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": {
                "python": platform.python_version(),
                "kernel": platform.release(),
                "cpus": os.cpu_count(),
            },
            "commit": _commit(),
        }

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append({"floor": BY_NAME[row["row"]].floor, **row})
        self.write()

    def note(self, **more: Any) -> None:
        self._about.update(more)
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({**self._about, "rows": self.rows}, indent=1) + "\n")
        part.replace(self.path)

    def failed(self) -> list[str]:
        return [row["row"] for row in self.rows if row["status"] in {"failed", "error"}]

    def table(self) -> str:
        lines = [f"{'row':<16} {'result':<8} {'s':>5}  figures"]
        for row in self.rows:
            said = row.get("reason") or "; ".join(row.get("broken", [])) or _figures(row.get("figures", {}))
            lines.append(f"{row['row']:<16} {row['status']:<8} {row.get('seconds', 0):>5.1f}  {said}")
        return "\n".join(lines)


def _figures(figures: dict[str, Any]) -> str:
    short = [f"{name}={value:.4g}" for name, value in figures.items() if isinstance(value, (int, float))]
    return " ".join(short)[:200]


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
    except OSError:
        return ""
    return done.stdout.strip()
