"""The local transport: 600 KB through shared memory against gRPC on loopback, and a tiny model from one client process."""

from __future__ import annotations

import contextlib
import tempfile
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import models
from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.processes import Server, run_tool
from harness.report import Result, at_least, at_most

CPU = "server_cpu_us_per_request"
IMAGE = "identity_image"
OURS, GRPC = "local", "gRPC raw"


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "local.sock"
        mlp = models.mlp(bench.models).path
        server = bench.start_fastserve(
            stack, models.identity(bench.models).path, None, "--model-repository", mlp, "--local", path
        )
        if server is None:
            return Result("local", "not measured", interleave([], 0), [], [])
        before = _copied(server)
        blocks = [
            Block("600 KB 1x1", OURS, partial(_local, bench, server, path, IMAGE, 1, cpu=bench.client_cpu)),
            Block(
                "600 KB 1x1",
                GRPC,
                partial(
                    bench.load,
                    server,
                    1,
                    1,
                    *bench.on_client_cpu(),
                    "--model",
                    IMAGE,
                    "--shape",
                    "1,3,224,224",
                ),
            ),
            Block("MLP 1x64", OURS, partial(_local, bench, server, path, "mlp", 64, cpu=bench.client_cpu)),
        ]
        # Only our own blocks could copy: gRPC's single request is bound as it is, and its answer sent from the batch.
        samples = interleave(blocks, bench.rounds)
        copied = _copied(server) - before
    bench.remark(f"bytes of {IMAGE} that the server copied in all blocks: {copied:.0f}")
    return Result(
        "local",
        "FP32 [1,3,224,224] (602,112 bytes) in and out of an identity model, one request at a time; MLP 16→64→10, one row, "
        "64 in flight from one thread of one C++ process.",
        samples,
        [
            at_most("600 KB, server CPU, local / gRPC", samples.ratio("600 KB 1x1", OURS, GRPC, CPU), 0.25),
            at_most("600 KB, p50, local / gRPC", samples.ratio("600 KB 1x1", OURS, GRPC, "p50_us"), 0.25),
            at_least("MLP, one row, requests/s", samples.spread("MLP 1x64", OURS, "qps"), 200_000),
        ],
        [
            (CPU, "server CPU-µs per request"),
            ("p50_us", "p50, µs"),
            ("p99_us", "p99, µs"),
            ("qps", "requests/s"),
        ],
    )


def _local(
    bench: Bench, server: Server, path: Path, model: str, in_flight: int, *, cpu: int
) -> dict[str, Any]:
    words: list[str | Path] = [bench.tool("local_load"), "--path", path, "--model", model]
    words += ["--in-flight", str(in_flight), "--seconds", str(bench.seconds), "--warmup", str(bench.warmup_s)]
    words += ["--server-pid", server.pids, "--cpu", str(cpu)]
    return run_tool(words, None, limit_s=bench.seconds + bench.warmup_s + 60)


def _copied(server: Server) -> float:
    with urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = f'fastserve_copied_bytes_total{{model="{IMAGE}"'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
