"""100,000 checksummed echo requests over 16 connections, gRPC and REST mixed: none lost, none crossed."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import models
from harness.bench import Bench
from harness.blocks import Block, Samples, interleave
from harness.processes import Server, run_tool
from harness.report import Result, Verdict

CONNECTIONS = 16
LOADS = (
    ("8 gRPC × 8 + 8 REST", 8, ("--mix",)),
    ("8 gRPC × 8 + 8 REST × 8 pipelined", 8, ("--mix", "--pipeline")),
)


def ask(
    bench: Bench, server: Server, in_flight: int, words: tuple[str, ...], grpc_only: bool
) -> dict[str, Any]:
    command: list[str | Path] = [
        bench.tool("loadgen"),
        "--grpc",
        server.addresses["grpc"],
        "--model",
        "identity_any",
        "--shape",
        "1,16",
    ]
    if not grpc_only:
        command += ["--rest", server.addresses["http"], *words]
    command += [
        "--connections",
        str(CONNECTIONS),
        "--in-flight",
        str(in_flight),
        "--count",
        str(bench.echo_requests),
    ]
    command += ["--warmup", "0", "--verify-echo", "--server-pid", server.pids, *bench.on_client_cpu()]
    return run_tool(command, None, limit_s=600, allow_failure=True)


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, models.identity(bench.models).path)
        if server:
            blocks = [
                Block(load, "fastserve", partial(ask, bench, server, k, words, False))
                for load, k, words in LOADS
            ]
        else:  # shows that the check itself works
            rival = bench.start_rival(stack, "grpc C++ callback")
            blocks = [Block("16 gRPC × 8", rival.name, partial(ask, bench, rival, 8, (), True))]
        samples = interleave(blocks, 1)
    return Result(
        "echo",
        f"{bench.echo_requests:,} requests per line, each with its own random FP32 [1,16] and id; every reply "
        "compared with its request byte for byte.",
        samples,
        [_verdict(samples, load, bench.echo_requests) for load, _, _ in LOADS],
        [(key, key) for key in ("requests", "errors", "lost", "crossed", "qps", "server_cpu_us_per_request")],
    )


def _verdict(samples: Samples, load: str, wanted: int) -> Verdict:
    figure = f"{wanted:,} checksummed echo requests over {CONNECTIONS} connections, {load}: none lost, none crossed"
    found = samples.by_block.get((load, "fastserve"))
    if not found:
        return Verdict(figure, "fastserve was not there", None)
    sample = found[0]
    bad = {key: sample[key] for key in ("errors", "lost", "crossed")}
    text = f"{sample['requests']:,} verified, {bad['errors']} errors, {bad['lost']} lost, {bad['crossed']} crossed"
    notes = f" ({'; '.join(sample['notes'])})" if sample["notes"] else ""
    return Verdict(figure, text + notes, sample["verified"] == wanted and not any(bad.values()))
