"""gRPC's own C++ client, both drivers: what users' clients cost us, against a gRPC C++ callback server and grpc.aio."""

from __future__ import annotations

import contextlib
from functools import partial

import models
from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.report import Result, at_most, contrast

CPU = "server_cpu_us_per_request"
THREAD, UVLOOP, CALLBACK, AIO = "fastserve, I/O thread", "fastserve, uvloop", "grpc C++ callback", "grpc.aio"
IMAGE = ("--model", "identity_image", "--shape", "1,3,224,224")
LOADS = (
    ("4x1", 4, 1, ()),
    ("1x64", 1, 64, ()),
    ("4x1, 600 KB", 4, 1, IMAGE),
    ("1x1, 600 KB", 1, 1, IMAGE),
)
# (load, ours, theirs, at most)
WANTED = (
    ("4x1", THREAD, CALLBACK, 0.60),
    ("1x64", THREAD, CALLBACK, 0.45),
    ("4x1", UVLOOP, CALLBACK, 0.80),
    ("1x64", UVLOOP, CALLBACK, 0.60),
    ("4x1, 600 KB", THREAD, CALLBACK, 0.40),
    ("4x1", THREAD, AIO, 1 / 12),
    ("1x64", THREAD, AIO, 1 / 40),
)
UNSET = (("1x1, 600 KB", THREAD, CALLBACK), ("4x1, 600 KB", UVLOOP, CALLBACK), ("4x1, 600 KB", THREAD, AIO))


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        repository = models.identity(bench.models).path
        servers = [
            bench.start_fastserve(stack, repository, None, "--io-threads", "1", name=THREAD),
            bench.start_fastserve(stack, repository, None, "--io-threads", "0", name=UVLOOP),
            bench.start_rival(stack, CALLBACK),
            bench.start_rival(stack, AIO),
        ]
        blocks = []
        for load, channels, in_flight, words in LOADS:
            for server in filter(None, servers):
                ask = partial(bench.load, server, channels, in_flight, *bench.on_client_cpu(), *words)
                blocks.append(Block(load, server.name, partial(ask, client="grpc_client_cpp")))
        samples = interleave(blocks, bench.rounds)
    said = "server CPU per request, gRPC C++ client"
    verdicts = [
        at_most(f"{said}, {load}, {ours} / {theirs}", samples.ratio(load, ours, theirs, CPU), limit)
        for load, ours, theirs, limit in WANTED
    ]
    verdicts += [
        contrast(f"{said}, {load}, {ours} / {theirs}", samples.ratio(load, ours, theirs, CPU))
        for load, ours, theirs in UNSET
    ]
    return Result(
        "clients",
        "ModelInfer by the gRPC C++ library's asynchronous client (Debian's), identity, raw contents: FP32 [1,16], and "
        "FP32 [1,3,224,224] (602,112 bytes). Loads are channels × calls in flight on each; every channel is a connection.",
        samples,
        verdicts,
        [
            (CPU, "server CPU-µs per request"),
            ("p50_us", "p50, µs"),
            ("qps", "requests/s"),
            ("client_cpu_us_per_request", "client CPU-µs per request"),
        ],
    )
