"""gRPC, small tensor: what the front end costs, against grpc.aio and a gRPC C++ callback server."""

from __future__ import annotations

import contextlib
from functools import partial

import models
from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.report import Result, at_most

LOADS = ((1, 1), (16, 1), (4, 16))
CPU = "server_cpu_us_per_request"


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        servers = [
            bench.start_fastserve(stack, models.identity(bench.models).path),
            bench.start_rival(stack, "grpc C++ callback"),
            bench.start_rival(stack, "grpc.aio"),
        ]
        blocks = [
            Block(f"{c}x{k}", server.name, partial(bench.load, server, c, k, *bench.on_client_cpu()))
            for c, k in LOADS
            for server in servers
            if server
        ]
        # The same question asked by gRPC's own client: no verdict rests on ours alone.
        blocks += [
            Block(
                "4x1, gRPC client",
                server.name,
                partial(bench.load, server, 4, 1, *bench.on_client_cpu(), client="grpc_client_cpp"),
            )
            for server in servers
            if server
        ]
        samples = interleave(blocks, bench.rounds)
    at_16 = "server CPU per request, FP32 [1,16], 16 connections × 1"
    return Result(
        "small",
        "FP32 [1,16] over gRPC ModelInfer with raw contents, identity. The rivals answer on the spot: no queue, no "
        "validation. Loads are connections × in flight.",
        samples,
        [
            at_most(
                f"{at_16}, fastserve / grpc.aio", samples.ratio("16x1", "fastserve", "grpc.aio", CPU), 1 / 8
            ),
            at_most(
                f"{at_16}, fastserve / grpc C++ callback",
                samples.ratio("16x1", "fastserve", "grpc C++ callback", CPU),
                0.8,
            ),
        ],
        [
            (CPU, "server CPU-µs per request"),
            ("p50_us", "p50, µs"),
            ("p99_us", "p99, µs"),
            ("qps", "requests/s"),
        ],
    )
