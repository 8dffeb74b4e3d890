"""1,000 models that nobody asks: what they cost in memory, threads and CPU."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import models
from harness import observe
from harness.bench import Bench
from harness.blocks import Block, Sample, interleave, spread
from harness.report import Result, at_most, contrast

MANY = 1000
ONE, ALL = "1 model", f"{MANY:,} models"
SETTLE_S = 2.0


def run(bench: Bench) -> Result:
    repositories = {ONE: models.idle(1, bench.models).path, ALL: models.idle(MANY, bench.models).path}
    blocks = [Block("idle", name, lambda path=path: cost(bench, path)) for name, path in repositories.items()]
    samples = interleave(blocks, bench.rounds)

    def added(metric: str, per: float = 1) -> list[float]:
        pairs = zip(samples.values("idle", ALL, metric), samples.values("idle", ONE, metric), strict=False)
        return [(many - one) / per for many, one in pairs]

    return Result(
        "idle_models",
        f"Identity models FP32 [N,16], loaded at the start, never asked; a new server each time. CPU over {idle_s(bench):.0f} s. "
        "Memory: resident bytes of the process.",
        samples,
        [
            at_most(
                f"server CPU for {MANY - 1} idle models, share of one core",
                spread(added("cpu_percent")),
                0.1,
                " %",
            ),
            at_most("memory per idle model", spread(added("resident_kb", MANY - 1)), 64, " KB"),
            at_most(
                f"threads for {MANY - 1} idle models (a second loader may have started)",
                spread(added("threads")),
                1,
            ),
            contrast("load time per model", spread(added("ready_s", (MANY - 1) / 1e3)), " ms"),
        ],
        [
            ("cpu_percent", "CPU, % of a core"),
            ("resident_kb", "resident KB"),
            ("threads", "threads"),
            ("ready_s", "seconds until ready"),
        ],
    )


def idle_s(bench: Bench) -> float:
    return min(10.0, 10 / 3 * bench.seconds)  # 10 s for the windows of 3 s that are usual


def cost(bench: Bench, repository: Path) -> Sample:
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        server = bench.start_fastserve(stack, repository)
        if server is None:
            return {}
        ready_s, pid = time.monotonic() - began, server.process.pid
        time.sleep(SETTLE_S)
        before, started = observe.cpu_s(pid), time.monotonic()
        time.sleep(idle_s(bench))
        return {
            "cpu_percent": 100 * (observe.cpu_s(pid) - before) / (time.monotonic() - started),
            "resident_kb": observe.resident_bytes(pid) / 1024,
            "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
            "ready_s": ready_s,
        }
