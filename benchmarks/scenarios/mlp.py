"""A tiny model over gRPC against the bare OpenVINO limit: what serving adds when the model costs next to nothing."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, interleave, spread
from harness.report import Result, contrast

REQUEST = ("--model", "mlp", "--input", "input", "--shape", "1,16")
CPU = "server_cpu_us_per_request"


def run(bench: Bench) -> Result:
    streams = threads = 1
    repository = models.mlp(bench.models, limit.openvino_properties("f32", streams, threads))

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
        blocks = [Block("limit", "bare OpenVINO", bare)]
        if server:
            for c, k in ((1, 1), (16, 1), (4, 16)):
                words = (*bench.on_client_cpu(), *REQUEST)
                blocks.append(Block(f"{c}x{k}", "fastserve gRPC", partial(bench.load, server, c, k, *words)))
        samples = interleave(blocks, bench.rounds)
    ours = samples.values("1x1", "fastserve gRPC", "p50_us")
    added = spread(
        [a - b for a, b in zip(ours, samples.values("limit", "bare OpenVINO", "p50_us"), strict=False)]
    )
    figure = "MLP over gRPC, p50 at 1 × 1, fastserve − a bare blocking infer()"
    return Result(
        "mlp",
        "MLP 16→64→10, FP32, 1 stream, 1 thread, server on one CPU. Bare: blocking infer() on that CPU; "
        "qps = better of batch 1 and 8 in rows/s, p50 and CPU of batch 1.",
        samples,
        [contrast(figure, added, " µs")],
        [(CPU, "CPU-µs per request (bare: per row)"), ("p50_us", "p50, µs"), ("qps", "requests/s")],
    )
