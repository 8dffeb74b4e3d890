"""ResNet-50 over gRPC and Engine.infer_async against the bare OpenVINO limit: same precision, streams, threads; all cores.

Throughput in blocks of one contender each; what is added to one image, in turns call by call (turns_probe.py)."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial
from typing import Any

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, Spread, interleave, spread
from harness.in_process import in_process
from harness.processes import BenchError
from harness.report import Result, Verdict, at_least, at_most, contrast

CASES = (
    "1x1",
    "1x0",
    "8x0",
)  # one in flight for latency; batch 1 and 8 at OpenVINO's own optimum for throughput
BARE, GRPC, ASYNC = "bare OpenVINO", "fastserve gRPC", "Engine.infer_async"
TURNS = "1, in turns"
# The contenders of turns_probe.py beside BARE and ASYNC.
INFER, BARE_AGAIN = "Engine.infer", "bare OpenVINO again"
GRPC_LEAN, GRPCIO = "fastserve gRPC, plain socket", "fastserve gRPC, grpcio"
REQUEST = ("--model", "resnet50", "--input", "input", "--shape", "1,3,224,224")


def run(bench: Bench) -> Result:
    # Replies come in bursts of a batch: a window must hold many, and the first ones are not typical.
    bench = dataclasses.replace(bench, seconds=3 * bench.seconds, warmup_s=max(2.0, bench.warmup_s))
    cpus = bench.all_cpus
    streams, threads = bench.streams, len(cpus)
    properties = limit.openvino_properties(bench.precision, streams, threads)
    repository = models.resnet50(bench.models, properties)

    def bare() -> dict[str, Any]:
        runs = limit.measure(bench, repository.model_file, CASES, streams, threads)
        best = max((runs["1x0"], runs["8x0"]), key=lambda case: case["qps"])
        return {
            "qps": best["qps"],
            "best": best["case"],
            "p50_us": runs["1x1"]["p50_us"],
            "server_cpu_us_per_request": best["cpu_us_per_row"],
            "runs": runs,
        }

    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, repository.path, cpus)
        blocks = [Block("limit", BARE, bare)]
        if server:
            # n in flight are n connections × 1, as n independent clients would ask.
            blocks += [
                Block(f"{n} in flight", GRPC, partial(bench.load, server, n, 1, *REQUEST)) for n in (1, 8, 32)
            ]
        try:
            probe = stack.enter_context(in_process(repository.model_file, properties))
            blocks += [Block(f"{n} in flight", ASYNC, partial(probe.load, bench, n)) for n in (1, 8, 32)]
        except BenchError as error:
            bench.remark(f"{ASYNC} not measured: {error}")
        samples = interleave(blocks, bench.rounds)
        try:
            address = server.addresses["grpc"] if server else "none"
            turns = stack.enter_context(
                in_process(repository.model_file, properties, address, probe="turns_probe.py")
            )
            bench.remark(f"in process: {turns.ready['lone']}")
            for _ in range(bench.rounds):
                for contender, sample in turns.ask(2 * bench.seconds, bench.warmup_s).items():
                    samples.by_block.setdefault((TURNS, contender), []).append(sample)
        except BenchError as error:
            bench.remark(f"in turns not measured: {error}")

    def against_bare(contender: str, n: int, metric: str) -> list[tuple[float, float]]:
        ours = samples.values(f"{n} in flight", contender, metric)
        return list(zip(ours, samples.values("limit", BARE, metric), strict=False))

    def throughput(contender: str, n: int, wanted: float) -> Verdict:
        ratio = spread([ours / bare for ours, bare in against_bare(contender, n, "qps")])
        return at_least(f"images/s at {n} in flight, {contender} / bare limit", ratio, wanted)

    def added(contender: str) -> tuple[str, Spread | None]:
        """Of pairs that follow one another: the difference of two medians would have the weather between them."""
        differences = samples.spread(TURNS, contender, "added_us")
        figure = f"at 1 in flight, in turns, {contender} − bare, median of the differences"
        return figure, differences and Spread(*(value / 1e3 for value in dataclasses.astuple(differences)))

    def latency(contender: str, wanted_ms: float) -> Verdict:
        figure, value = added(contender)
        return at_most(figure, value, wanted_ms, " ms")

    return Result(
        "resnet50",
        f"FP32 [1,3,224,224] requests, {bench.precision} compute, {streams} streams, {threads} threads, "
        f"CPUs {cpus}; client on the same CPUs. Bare: C++, no copies; qps = better of batch 1 and 8, p50 = batch 1 "
        "with one in flight. In turns: one process asks each in turn, call by call, bytes made beforehand; gRPC over a "
        "plain socket, because grpcio's client alone takes most of a millisecond for 600 KB (its own line), and a second bare "
        "request as the noise.",
        samples,
        [
            throughput(ASYNC, 32, 0.97),
            throughput(GRPC, 32, 0.93),
            throughput(ASYNC, 8, 0.93),
            throughput(GRPC, 8, 0.90),
            latency(INFER, 0.2),
            latency(ASYNC, 0.2),
            latency(GRPC_LEAN, 0.5),
            contrast(*added(GRPCIO), unit=" ms"),
            contrast(*added(BARE_AGAIN), unit=" ms"),
        ],
        [
            ("qps", "images/s"),
            ("p50_us", "p50, µs"),
            ("p99_us", "p99, µs"),
            ("added_us", "median of the differences to bare, turn by turn, µs"),
            ("server_cpu_us_per_request", "CPU-µs per image"),
        ],
    )
