"""What the figures were measured on, and how quiet it was."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PACKAGES = ("fastserve", "openvino", "grpcio", "protobuf", "numpy", "uvloop")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.M)
    flags = set((re.search(r"^flags\s*:\s*(.+)$", cpuinfo, re.M) or ["", ""])[1].split())
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model[1] if model else "unknown",
        "cpus": len(os.sched_getaffinity(0)),
        "isa": sorted(
            flags & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"}
        ),
        "virtual": "hypervisor" in flags,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {
            name: _version(name)
            for name in ("fastserve", "openvino", "grpcio", "protobuf", "numpy", "uvloop")
        },
        "commit": _commit(),
    }


def native_precision() -> str:
    """What OpenVINO itself would choose on this CPU; said explicitly to both sides of a comparison."""
    return "bf16" if {"avx512_bf16", "amx_bf16"} & set(describe()["isa"]) else "f32"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@dataclass
class Noise:
    """CPU time of the whole machine between two moments. Ticks of 10 ms: read it over seconds."""

    busy_s: float
    steal_s: float  # wanted by us, given by the hypervisor to somebody else

    @classmethod
    def now(cls) -> Noise:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        )
        return cls((user + nice + system + irq + softirq) / _TICKS_PER_S, steal / _TICKS_PER_S)

    def since(self, start: Noise) -> Noise:
        return Noise(self.busy_s - start.busy_s, self.steal_s - start.steal_s)


def children_cpu_s() -> float:
    """CPU time of this runner and of the children that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
