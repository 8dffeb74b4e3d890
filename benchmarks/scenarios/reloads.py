"""A model that is loaded and unloaded again and again leaves nothing behind: memory, descriptors, threads, mappings."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import models
from harness import observe
from harness.bench import Bench
from harness.blocks import Block, Sample, Spread, interleave
from harness.processes import BenchError
from harness.report import Result, at_most, contrast
from harness.swapper import Asking

CYCLES = 200
SETTLED = 10  # cycles, after which allocators and pools have what they keep
MODEL = "resnet50"
LOAD, CONTENDER = f"{CYCLES} x load and unload", "fastserve"


@dataclass(frozen=True)
class Held:
    """By the server, with nothing loaded."""

    rss_bytes: int
    descriptors: int
    threads: int
    mappings: int


def run(bench: Bench, cycles: int = CYCLES) -> Result:
    with contextlib.ExitStack() as stack:
        repository = models.resnet50(bench.models)
        arguments = ("--model-control-mode", "explicit")
        server = bench.start_fastserve(stack, repository.path, bench.all_cpus, *arguments)
        blocks = []
        if server is not None:
            address, pid = server.addresses["http"], server.process.pid
            blocks.append(Block(LOAD, CONTENDER, partial(reload, address, pid, MODEL, cycles)))
        samples = interleave(blocks, 1)

    def of(metric: str) -> Spread | None:
        return samples.spread(LOAD, CONTENDER, metric)

    return Result(
        "reloads",
        f"ResNet-50 on OpenVINO, loaded and unloaded by request, never asked; figures after each unload, against those after the "
        f"first {SETTLED}.",
        samples,
        [
            at_most("resident memory that was added, share", of("rss_share"), 0.02),
            at_most("resident memory that was added", of("rss_mb"), 32, " MB"),
            at_most("file descriptors that were added", of("descriptors"), 0),
            at_most("threads that were added", of("threads"), 0),
            at_most("mappings that a cycle adds (slope by least squares)", of("mappings_per_cycle"), 0.05),
            contrast("a load and unload takes", of("cycle_s"), " s"),
        ],
        [
            ("base_mb", f"resident after {SETTLED}, MB"),
            ("rss_mb", "added at the end, MB"),
            ("descriptors", "descriptors added"),
            ("threads", "threads added"),
            ("mappings_per_cycle", "mappings a cycle"),
            ("cycle_s", "s a cycle"),
        ],
    )


def held(pid: int) -> Held:
    folder = Path(f"/proc/{pid}")
    return Held(
        observe.resident_bytes(pid),
        sum(1 for _ in (folder / "fd").iterdir()),
        sum(1 for _ in (folder / "task").iterdir()),
        len((folder / "maps").read_text().splitlines()),
    )


def reload(address: str, pid: int, model: str, cycles: int) -> Sample:
    asking = Asking(address)
    began, seen = time.monotonic(), []
    for number in range(cycles):
        for what in ("load", "unload"):
            status, answer = asking.call("POST", f"/v2/repository/models/{model}/{what}")
            if status != 200:
                raise BenchError(f"{what} {number} of {model}: {status} {answer}")
        seen.append(held(pid))
    asking.close()
    return described(seen) | {"cycle_s": (time.monotonic() - began) / cycles}


def described(seen: Sequence[Held], settled: int = SETTLED) -> Sample:
    """What the last tenth (one cycle at least) has more than cycle `settled`; medians, as both may catch a moment."""
    base, late = seen[settled - 1 :][:5], seen[-max(1, len(seen) // 10) :]

    def added(of: str) -> float:
        return statistics.median(getattr(h, of) for h in late) - statistics.median(
            getattr(h, of) for h in base
        )

    base_bytes = statistics.median(h.rss_bytes for h in base)
    return {
        "base_mb": base_bytes / 1e6,
        "rss_mb": added("rss_bytes") / 1e6,
        "rss_share": added("rss_bytes") / base_bytes,
        "descriptors": added("descriptors"),
        "threads": added("threads"),
        "mappings_per_cycle": slope([h.mappings for h in seen[settled - 1 :]]),
        "rss_mb_by_cycle": [round(h.rss_bytes / 1e6, 1) for h in seen],
        "mappings_by_cycle": [h.mappings for h in seen],
        "descriptors_by_cycle": [h.descriptors for h in seen],
        "threads_by_cycle": [h.threads for h in seen],
    }


def slope(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    return statistics.linear_regression(range(len(values)), values).slope
