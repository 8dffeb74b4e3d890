"""What TLS costs over gRPC, and what it costs the gRPC C++ callback server."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import models
from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.processes import BenchError
from harness.report import Result, contrast

CPU = "server_cpu_us_per_request"
PLAIN, TLS, RIVAL = "fastserve, plain", "fastserve, TLS", "grpc C++ callback"
RIVAL_TLS = f"{RIVAL}, TLS"
IMAGE = ("--model", "identity_image", "--shape", "1,3,224,224")
LOADS = (("4x1", 4, 1, ()), ("1x64", 1, 64, ()), ("4x1, 600 KB", 4, 1, IMAGE))


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastserve-bench-tls-")))
        cert, key = certificate(folder)
        flags = ("--tls-cert", cert, "--tls-key", key)
        repository = models.identity(bench.models).path
        servers = [
            bench.start_fastserve(stack, repository, name=PLAIN),
            bench.start_fastserve(stack, repository, None, *flags, name=TLS),
            bench.start_rival(stack, RIVAL),
            bench.start_rival(stack, RIVAL, *flags, name=RIVAL_TLS),
        ]
        blocks = []
        for load, channels, in_flight, request in LOADS:
            for server in filter(None, servers):
                trust = ("--tls-ca", cert) if server.name in (TLS, RIVAL_TLS) else ()
                words = (*bench.on_client_cpu(), *request, *trust)
                ask = partial(bench.load, server, channels, in_flight, *words, client="grpc_client_cpp")
                blocks.append(Block(load, server.name, ask))
        samples = interleave(blocks, bench.rounds)
    pairs = ((TLS, PLAIN), (RIVAL_TLS, RIVAL), (TLS, RIVAL_TLS))
    return Result(
        "tls",
        "gRPC over TLS 1.3 (P-256 certificate), gRPC C++ client, identity: FP32 [1,16] and FP32 [1,3,224,224] (602,112 "
        "bytes). Connections are made before the window.",
        samples,
        [
            contrast(f"server CPU per request, {load}, {one} / {other}", samples.ratio(load, one, other, CPU))
            for load, *_ in LOADS
            for one, other in pairs
        ],
        [(CPU, "server CPU-µs per request"), ("p50_us", "p50, µs"), ("qps", "requests/s")],
    )


def certificate(folder: Path) -> tuple[Path, Path]:
    """Signs itself, for 127.0.0.1: (certificate, key)."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench"
    command = [
        "openssl",
        *words.split(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key,
        "-out",
        cert,
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"openssl: {done.stderr.strip()}")
    return cert, key
