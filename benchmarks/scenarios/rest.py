"""HTTP with binary tensors at 64 connections: what the server spends beyond the kernel's own share."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import models
from harness.bench import Bench
from harness.blocks import Block, Samples, interleave, spread
from harness.processes import Server, serving
from harness.report import Result, at_most, contrast
from harness.wire import exchange

CPU = "server_cpu_us_per_request"
LOAD = "64x1"
THREAD, UVLOOP, ECHO = "fastserve, I/O thread", "fastserve, uvloop", "kernel echo"


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        repository = models.identity(bench.models).path
        servers = [
            bench.start_fastserve(stack, repository, None, "--io-threads", "1", name=THREAD),
            bench.start_fastserve(stack, repository, None, "--io-threads", "0", name=UVLOOP),
        ]
        ours = [server for server in servers if server]
        blocks = [Block(LOAD, server.name, partial(ask, bench, server)) for server in ours]
        sizes = "no fastserve, no bytes to echo"
        if ours:
            request, reply = one_exchange(bench, ours[0])
            sizes = f"{len(request)} bytes in, {len(reply)} out, headers included"
            blocks.append(Block(LOAD, ECHO, partial(ask, bench, start_echo(bench, stack, request, reply))))
        samples = interleave(blocks, bench.rounds)
    figure = f"server CPU per request beyond a kernel echo of the same bytes, HTTP binary, {LOAD}"
    return Result(
        "rest",
        f"FP32 [1,16] as binary tensor data over HTTP/1.1, identity, 64 connections × 1 ({sizes}). Kernel echo: C++, one "
        "thread, epoll, one read and one write per request, fixed lengths; it answers with the very bytes of our answer.",
        samples,
        [
            at_most(f"{figure}, {THREAD}", beyond(samples, THREAD), 10, " µs"),
            contrast(f"{figure}, {UVLOOP}", beyond(samples, UVLOOP), " µs"),
        ],
        [
            (CPU, "server CPU-µs per request"),
            ("server_cpu_cores", "server CPUs in use"),
            ("p50_us", "p50, µs"),
            ("qps", "requests/s"),
        ],
    )


def ask(bench: Bench, server: Server) -> dict[str, Any]:
    return bench.load(server, 64, 1, "--rest", server.addresses["http"], *bench.on_client_cpu())


def one_exchange(bench: Bench, server: Server) -> tuple[bytes, bytes]:
    """The load client's request and fastserve's reply, as they are on the wire."""
    once = dataclasses.replace(bench, warmup_s=0.0)
    return exchange(
        server.addresses["http"], lambda address: once.load(server, 1, 1, "--rest", address, "--count", "1")
    )


def start_echo(bench: Bench, stack: contextlib.ExitStack, request: bytes, reply: bytes) -> Server:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastserve-bench-echo-")))
    (folder / "reply").write_bytes(reply)
    command = [bench.tool("kernel_echo"), "--request-bytes", str(len(request)), "--reply", folder / "reply"]
    return stack.enter_context(serving("kernel-echo", command, bench.server_cpus))


def beyond(samples: Samples, contender: str) -> Any:
    ours, floor = samples.values(LOAD, contender, CPU), samples.values(LOAD, ECHO, CPU)
    return spread([a - b for a, b in zip(ours, floor, strict=False)])
