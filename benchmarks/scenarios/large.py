"""gRPC and REST, 600 KB tensors: what moving bytes costs."""

from __future__ import annotations

import contextlib
from functools import partial

import models
from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.report import Result, contrast

LOADS = ((1, 1), (4, 1), (4, 4))
CPU = "server_cpu_us_per_request"
IMAGE = ("--model", "identity_image", "--shape", "1,3,224,224")


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        fastserve = bench.start_fastserve(stack, models.identity(bench.models).path)
        rivals = [bench.start_rival(stack, name) for name in ("grpc C++ callback", "grpc.aio")]
        blocks = []
        for c, k in LOADS:
            for server in ([fastserve] if fastserve else []) + rivals:
                words = (*bench.on_client_cpu(), *IMAGE)
                blocks.append(Block(f"{c}x{k}", server.name, partial(bench.load, server, c, k, *words)))
            if fastserve and k == 1:
                words = (*bench.on_client_cpu(), *IMAGE, "--rest", fastserve.addresses["http"])
                blocks.append(
                    Block(f"{c}x{k}", "fastserve REST", partial(bench.load, fastserve, c, k, *words))
                )
        samples = interleave(blocks, bench.rounds)
    verdicts = []
    for rival in ("grpc C++ callback", "grpc.aio"):
        ratio = samples.ratio("4x1", "fastserve", rival, CPU)
        verdicts.append(contrast(f"server CPU per request, 600 KB, 4 × 1, fastserve / {rival}", ratio))
    return Result(
        "large",
        "FP32 [1,3,224,224] (602,112 bytes) in and out, identity; REST is binary tensor data.",
        samples,
        verdicts,
        [(CPU, "server CPU-µs per request"), ("p50_us", "p50, µs"), ("qps", "requests/s")],
    )
