"""A tiny model over gRPC: what serving adds when the model costs next to nothing, and what batching takes off again."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, interleave, spread
from harness.report import Result, at_most, contrast

REQUEST = ("--input", "input", "--shape", "1,16")
CPU = "server_cpu_us_per_request"
LOADS = ((1, 1), (16, 1), (4, 16))
OURS, UNBATCHED, RIVAL = "fastserve gRPC", "fastserve, max_batch_size 1", "gRPC C++ + OpenVINO"


def run(bench: Bench) -> Result:
    streams = threads = 1
    repository = models.mlp_pair(bench.models, limit.openvino_properties("f32", streams, threads))

    def bare() -> dict[str, Any]:
        runs = limit.measure(
            bench, repository.model_file, ("1x1", "8x1"), streams, threads, "--sync",
            cpus=bench.server_cpus, precision="f32",
        )  # fmt: skip
        best = max(runs.values(), key=lambda case: case["qps"])
        return {
            "qps": best["qps"],
            "p50_us": runs["1x1"]["p50_us"],
            CPU: runs["1x1"]["cpu_us_per_row"],
            "runs": runs,
        }

    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, repository.path)
        rival = bench.start_rival(stack, RIVAL, "--model", repository.model_file)
        blocks = [Block("limit", "bare OpenVINO", bare)]
        for c, k in LOADS:
            words = (*bench.on_client_cpu(), *REQUEST)
            load = f"{c}x{k}"
            if server:
                blocks += [
                    Block(load, OURS, partial(bench.load, server, c, k, "--model", "mlp", *words)),
                    Block(
                        load, UNBATCHED, partial(bench.load, server, c, k, "--model", "mlp_unbatched", *words)
                    ),
                ]
            blocks.append(Block(load, RIVAL, partial(bench.load, rival, c, k, "--model", "mlp", *words)))
        samples = interleave(blocks, bench.rounds)
    ours = samples.values("1x1", OURS, "p50_us")
    added = spread(
        [a - b for a, b in zip(ours, samples.values("limit", "bare OpenVINO", "p50_us"), strict=False)]
    )
    return Result(
        "mlp",
        "MLP 16→64→10, FP32, 1 stream, 1 thread, server on one CPU. Bare: blocking infer() on that CPU; "
        "qps = better of batch 1 and 8 in rows/s, p50 and CPU of batch 1. The rival calls infer() for each request on the "
        "thread that read it.",
        samples,
        [
            at_most(
                "server CPU per request at 4x16, fastserve / its own unbatched",
                samples.ratio("4x16", OURS, UNBATCHED, CPU),
                1 / 3,
            ),
            at_most(
                f"server CPU per request at 4x16, fastserve / {RIVAL}",
                samples.ratio("4x16", OURS, RIVAL, CPU),
                1 / 5,
            ),
            contrast("MLP over gRPC, p50 at 1 × 1, fastserve − a bare blocking infer()", added, " µs"),
        ],
        [(CPU, "CPU-µs per request (bare: per row)"), ("p50_us", "p50, µs"), ("qps", "requests/s")],
    )
