"""Hot swaps under load: one version after the other takes its predecessor's place at 80 % of the peak."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from harness.bench import Bench
from harness.blocks import Block, Sample, Samples, Spread, interleave, spread
from harness.processes import BenchError, Server, run_tool
from harness.report import Result, Verdict, at_most, contrast
from harness.swapper import WIDTH, Swapper, Swaps, percentile, write_repository

SHARE = 0.8  # of the peak
SWAPS = 500  # of each way, in all rounds together
EVERY_S = 0.4  # a swap costs a tenth of a second of CPU, and at 80 % of the peak two CPUs have 0.4 s/s left
STEADY_S = 15.0  # without swaps, before and after them
LADDER = [
    0.4 + 0.05 * step for step in range(12)
]  # shares of the closed loop's rate, which batches more than arrivals do
RUNG_S = 1.5
LOAD = "80 % of peak, gRPC + REST"
WAYS = {
    "api": ("--model-control-mode", "explicit", "--load-model", "*"),
    "poll": ("--model-control-mode", "poll", "--repository-poll-secs", "0.1"),
}
NAMES = {"api": "load by API", "poll": "poll"}


def run(bench: Bench) -> Result:
    return of_ways(bench, "swaps", tuple(WAYS))


def by_api(bench: Bench) -> Result:
    return of_ways(bench, "swaps_api", ("api",))


def by_poll(bench: Bench) -> Result:
    return of_ways(bench, "swaps_poll", ("poll",))


def of_ways(bench: Bench, name: str, ways: Sequence[str]) -> Result:
    with contextlib.ExitStack() as stack:
        blocks = []
        for way in ways:
            arguments = WAYS[way]
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastserve-swaps-")))
            model = write_repository(folder)
            # All CPUs: what loads and who answers share them, as they would.
            server = bench.start_fastserve(
                stack, model.parent, bench.all_cpus, *arguments, name=f"fastserve, {NAMES[way]}"
            )
            if server is not None:
                swapper = Swapper(model, server.addresses["http"], way)
                blocks.append(Block(LOAD, NAMES[way], partial(measure, bench, server, swapper)))
        samples = interleave(blocks, bench.rounds)
    return Result(
        name,
        f"OpenVINO, FP32 [1,{WIDTH}], each version answers with its number; open loop, Poisson arrivals, 8 connections gRPC, 8 "
        f"REST, at {SHARE:.0%} of the peak: the highest rate up to which all are answered, 99 % within 50 ms, found before each "
        f"block. A new version each {EVERY_S} s, brought by a thread of nice 19; {STEADY_S:.0f} s without before and after. "
        "Every reply is looked at: its version by name and content, and that it is no older than the newest that had answered "
        "when it was asked.",
        samples,
        [verdict for way in map(NAMES.__getitem__, ways) for verdict in verdicts(samples, way)],
        [
            ("swaps", "swaps"),
            ("per_s", "requests/s"),
            ("steady_p99_ms", "p99 without swaps, ms"),
            ("p99_ms", "p99 during swaps, ms"),
            ("steady_p50_ms", "p50 without swaps, ms"),
            ("p50_ms", "p50 during swaps, ms"),
            ("load_p50_s", "a swap takes, median, s"),
            ("load_max_s", "a swap takes at most, s"),
            ("client_cpu_share", "load client's CPU, share of a core"),
        ],
    )


def verdicts(samples: Samples, way: str) -> list[Verdict]:
    def total(metric: str) -> Spread | None:
        values = samples.values(LOAD, way, metric)
        return Spread(sum(values), sum(values), sum(values)) if values else None

    pairs = zip(samples.values(LOAD, way, "p99_ms"), samples.values(LOAD, way, "steady_p99_ms"), strict=False)
    return [
        at_most(f"requests that failed, {way}", total("failed"), 0),
        at_most(f"replies of a wrong version, {way}", total("wrong_versions"), 0),
        at_most(f"swaps that failed, {way}", total("swaps_failed"), 0),
        contrast(f"swaps, {way}", total("swaps")),
        at_most(f"p99 during swaps / p99 without, {way}", spread([a / b for a, b in pairs]), 2),
        at_most(
            f"first answer of the new version after the load's end, slowest, {way}",
            samples.spread(LOAD, way, "visible_max_s"),
            1,
            " s",
        ),
    ]


def measure(bench: Bench, server: Server, swapper: Swapper) -> Sample:
    words = client_words(server)
    rate = SHARE * peak(bench, server, words)
    count = -(-SWAPS // bench.rounds)
    # Without swaps before and after them, so that a machine that gets slower hits both alike.
    warm_s, swapping_s = max(1.0, bench.warmup_s), count * EVERY_S
    phases = [warm_s, STEADY_S, swapping_s, STEADY_S]
    swaps = Swaps()

    def swap() -> None:
        nonlocal swaps
        # Of this thread: who brings new versions is a guest here, and would be on another machine.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        began = time.monotonic()
        time.sleep(0.1 + warm_s + STEADY_S)  # the client starts 0.1 s after it was called
        swaps = swapper.run(count, EVERY_S, until=began + warm_s + STEADY_S + swapping_s)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        result = offer(bench, server, words, [(rate, seconds) for seconds in phases])
    finally:
        swapping.join()
    if swaps.failed:
        bench.remark_once(f"a swap failed: {swaps.failed[0][:300]}")
    for note in result["notes"]:
        bench.remark_once(note)
    _, before, during, after = result["phases"]
    return described(before, during, after, swaps) | {
        "per_s": rate,
        "wrong_versions": result["wrong_versions"],
        "versions": result["versions"],
    }


def client_words(server: Server) -> list[str | Path]:
    """Of load clients, for gRPC and REST side by side."""
    both = ["--grpc", server.addresses["grpc"], "--rest", server.addresses["http"]]
    model = ["--model", "swap", "--input", "INPUT0", "--shape", f"1,{WIDTH}"]
    return [*both, *model]


def offer(
    bench: Bench, server: Server, words: list[str | Path], phases: list[tuple[float, float]]
) -> dict[str, Any]:
    """Open loop; `phases`: requests/s, seconds."""
    shape = ",".join(f"{rate:.1f}:{seconds:.3f}" for rate, seconds in phases)
    limits = ["--connections", "16", "--in-flight", "256", "--verify-version", "--server-pid", server.pids]
    limit_s = sum(seconds for _, seconds in phases) + 120
    return run_tool([bench.tool("open_load"), "--phases", shape, *words, *limits], None, limit_s=limit_s)


def peak(bench: Bench, server: Server, words: list[str | Path]) -> float:
    """requests/s: the rung of the ladder below the first one on which somebody was refused or 1 % waited longer than 50 ms."""
    closed = bench.load(server, 16, 4, "--mix", "--pipeline", *words)["qps"]
    rates = [share * closed for share in LADDER]
    rungs = offer(bench, server, words, [(rates[0], 1.0), *((rate, RUNG_S) for rate in rates)])["phases"][1:]
    highest = 0.0
    for rate, rung in zip(rates, rungs, strict=True):
        if rung["good"] < 0.99 * rung["offered"] or rung["refused"] + rung["failed"]:
            break
        highest = rate
    if not highest:
        raise BenchError(f"not even {rates[0]:.0f} requests/s are answered in time: {rungs[0]}")
    return highest


def described(before: Sample, during: Sample, after: Sample, swaps: Swaps) -> Sample:
    phases = (before, during, after)
    if any(phase["ok"]["p99_us"] is None for phase in phases):
        raise BenchError(f"a phase without a single answer: {phases}")
    return {
        "swaps": len(swaps.took_s),
        "swaps_failed": len(swaps.failed),
        "failed": sum(p["failed"] + p["refused"] + p["expired"] for p in phases),
        "steady_p99_ms": max(before["ok"]["p99_us"], after["ok"]["p99_us"]) / 1e3,
        "steady_p50_ms": (before["ok"]["p50_us"] + after["ok"]["p50_us"]) / 2e3,
        "p99_ms": during["ok"]["p99_us"] / 1e3,
        "p50_ms": during["ok"]["p50_us"] / 1e3,
        "load_p50_s": percentile(swaps.took_s, 0.5),
        "load_max_s": percentile(swaps.took_s, 1),
        "visible_max_s": percentile(swaps.visible_s, 1),
        "client_cpu_share": during["client_cpu_s"] / during["seconds"],
        "phases": list(phases),
    }
