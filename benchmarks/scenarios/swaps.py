"""Hot swaps under load: one version after the other takes its predecessor's place at 80 % of the peak."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import statistics
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
SWAPS = 250  # of each way, in all rounds together
EVERY_S = (
    1.0  # loads run in the CPU time that nobody else wants, and at 80 % of the peak there is little of it
)
WINDOW_S = 10.0  # with swaps, between two windows without: neighbours are compared, because the machine's speed drifts
STEADY_S = 5.0  # without
LADDER = [
    0.2 + 0.05 * rung for rung in range(13)
]  # shares of the closed loop's rate, which fills its batches
RUNG_S = 3.0
LOAD = "80 % of peak, gRPC + REST"
WAYS = {
    "api": ("--model-control-mode", "explicit", "--load-model", "*"),
    "poll": ("--model-control-mode", "poll", "--repository-poll-secs", "0.25"),
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
        f"OpenVINO with one thread, FP32 [1,{WIDTH}], each version answers with its number; open loop, Poisson arrivals, "
        f"8 connections gRPC, 8 REST, at {SHARE:.0%} of the peak: the highest rate at which all are answered, 99 % within "
        f"50 ms, found before each block. A new version each {EVERY_S:g} s, written before, brought by a thread of nice 19, "
        f"in windows of {WINDOW_S:.0f} s between such of {STEADY_S:.0f} s without; p99: medians of the windows. "
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

    ratios = [ratio for sample in samples.values(LOAD, way, "p99_ratios") for ratio in sample]
    return [
        at_most(f"requests that failed, {way}", total("failed"), 0),
        at_most(f"replies of a wrong version, {way}", total("wrong_versions"), 0),
        at_most(f"swaps that failed, {way}", total("swaps_failed"), 0),
        contrast(f"swaps, {way}", total("swaps")),
        at_most(f"p99 during swaps / p99 of the windows around, {way}", spread(ratios), 2),
        contrast(
            f"mean of the windows' p99, with / without swaps, {way}",
            samples.spread(LOAD, way, "mean_p99_ratio"),
        ),
        contrast(f"answered later than after 50 ms, {way}", total("late")),
        at_most(
            f"first answer of the new version after the load's end, slowest, {way}",
            samples.spread(LOAD, way, "visible_max_s"),
            1,
            " s",
        ),
    ]


def measure(bench: Bench, server: Server, swapper: Swapper) -> Sample:
    fit = round(WINDOW_S / EVERY_S)
    windows = math.ceil(SWAPS / bench.rounds / (fit - 1))  # one in ten takes longer than EVERY_S
    swapper.stage(windows * fit)
    words = client_words(server)
    rate = SHARE * peak(bench, server, words)
    warm_s = max(1.0, bench.warmup_s)
    # steady, swaps, steady, swaps, ..., steady
    phases = [warm_s, STEADY_S, *([WINDOW_S, STEADY_S] * windows)]
    swaps = Swaps()

    def swap(starts: float) -> None:
        # Of this thread: who brings new versions is a guest here, and would be on another machine.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        for window in range(windows):
            begins = starts + STEADY_S + window * (WINDOW_S + STEADY_S)
            time.sleep(max(0.0, begins - time.monotonic()))
            # So that the last one ends within the window.
            swapper.run(fit, EVERY_S, begins + WINDOW_S - EVERY_S / 2, swaps)

    # The client starts 0.1 s after it was called.
    swapping = threading.Thread(target=swap, args=(time.monotonic() + 0.1 + warm_s,))
    swapping.start()
    try:
        result = offer(bench, server, words, [(rate, seconds) for seconds in phases])
    finally:
        swapping.join()
    if swaps.failed:
        bench.remark_once(f"a swap failed: {swaps.failed[0][:300]}")
    for note in result["notes"]:
        bench.remark_once(note)
    _, *measured = result["phases"]
    return described(measured[::2], measured[1::2], swaps) | {
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
    """requests/s: the highest rung of the ladder up to which nobody was refused and 99 % were answered within 50 ms."""
    closed = bench.load(server, 16, 4, "--mix", "--pipeline", *words)["qps"]
    rates = [share * closed for share in LADDER]
    rungs = offer(bench, server, words, [(rates[0], 1.0), *((rate, RUNG_S) for rate in rates)])["phases"][1:]
    held = [rung["good"] >= 0.99 * rung["offered"] and not rung["refused"] + rung["failed"] for rung in rungs]
    # One rung may be lost to a stall of the machine; two in a row are the end.
    end = next((i for i in range(len(held)) if not any(held[i : i + 2])), len(held))
    if end == 0:
        raise BenchError(f"not even {rates[0]:.0f} requests/s are answered in time: {rungs[0]}")
    return max(rate for rate, kept in zip(rates[:end], held[:end], strict=True) if kept)


def described(steady: Sequence[Sample], during: Sequence[Sample], swaps: Swaps) -> Sample:
    phases = [*steady, *during]
    if any(phase["ok"]["p99_us"] is None for phase in phases):
        raise BenchError(f"a window without a single answer: {phases}")

    def milliseconds(windows: Sequence[Sample], quantile: str) -> list[float]:
        return [window["ok"][quantile] / 1e3 for window in windows]

    steady_p99, p99 = milliseconds(steady, "p99_us"), milliseconds(during, "p99_us")
    neighbours = [(before + after) / 2 for before, after in itertools.pairwise(steady_p99)]
    return {
        "swaps": len(swaps.took_s),
        "swaps_failed": len(swaps.failed),
        "failed": sum(p["failed"] + p["refused"] + p["expired"] for p in phases),
        "late": sum(p["late"] for p in phases),
        "steady_p99_ms": statistics.median(steady_p99),
        "p99_ms": statistics.median(p99),
        "p99_ratios": [a / b for a, b in zip(p99, neighbours, strict=True)],
        "mean_p99_ratio": statistics.mean(p99) / statistics.mean(steady_p99),
        "steady_p50_ms": statistics.median(milliseconds(steady, "p50_us")),
        "p50_ms": statistics.median(milliseconds(during, "p50_us")),
        "load_p50_s": percentile(swaps.took_s, 0.5),
        "load_max_s": percentile(swaps.took_s, 1),
        "visible_max_s": percentile(swaps.visible_s, 1),
        "client_cpu_share": sum(p["client_cpu_s"] for p in during) / sum(p["seconds"] for p in during),
        "steady": list(steady),
        "during": list(during),
    }
