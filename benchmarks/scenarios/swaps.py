"""Hot swaps under load: one version after the other takes its predecessor's place at 80 % of the peak."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.bench import Bench
from harness.blocks import Block, Sample, Samples, Spread, interleave, spread
from harness.processes import BenchError, Server, run_tool
from harness.report import Result, Verdict, at_most, contrast
from harness.swapper import WIDTH, Swapper, Swaps, percentile, write_repository

SHARE = 0.8  # of the peak
SWAPS = 500  # of each way, in all rounds together
EVERY_S = 0.2
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
        f"REST, at {SHARE:.0%} of the closed loop's peak, measured before each block. A new version each {EVERY_S} s, as long "
        "as without. Every reply is looked at: its version by name and content, and that it is no older than the newest that "
        "had answered when it was asked.",
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
    address = {"grpc": server.addresses["grpc"], "rest": server.addresses["http"]}
    words = ["--model", "swap", "--input", "INPUT0", "--shape", f"1,{WIDTH}", *bench.on_client_cpu()]
    both = ["--grpc", address["grpc"], "--rest", address["rest"]]
    peak = bench.load(server, 16, 4, "--mix", *both, "--pipeline", *words)["qps"]
    rate = SHARE * peak
    count = -(-SWAPS // bench.rounds)
    # Without swaps before and after them, so that a machine that gets slower hits both alike.
    half_s, warm_s = count * EVERY_S / 2, max(1.0, bench.warmup_s)
    phases = [warm_s, half_s, 2 * half_s, half_s]
    swaps = Swaps()

    def swap() -> None:
        nonlocal swaps
        began = time.monotonic()
        time.sleep(0.1 + warm_s + half_s)  # the client starts 0.1 s after it was called
        swaps = swapper.run(count, EVERY_S, until=began + warm_s + 3 * half_s)

    swapping = threading.Thread(target=swap)
    swapping.start()
    shape = ",".join(f"{rate:.1f}:{seconds:.3f}" for seconds in phases)
    command: list[str | Path] = [
        bench.tool("open_load"),
        *both,
        "--phases",
        shape,
        "--verify-version",
        *words,
    ]
    command += ["--connections", "16", "--in-flight", "256", "--server-pid", server.pids]
    try:
        result = run_tool(command, None, limit_s=sum(phases) + 120)
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
