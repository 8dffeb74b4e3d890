"""A busy Python thread in the server's process: inference must not wait for the interpreter lock."""

from __future__ import annotations

import contextlib
import sys
import time
from functools import partial
from pathlib import Path

import models
from harness.bench import RIVALS, Bench
from harness.blocks import Block, Sample, interleave
from harness.report import Result, at_most, contrast

HERE, ELSEWHERE, NOT_BUSY = "busy thread, same process", "busy thread, other process", "no busy thread"
UVLOOP = "uvloop, busy thread, same process"
# contender: (where the busy thread is, --io-threads)
CONTENDERS = {HERE: ("thread", 1), ELSEWHERE: ("process", 1), NOT_BUSY: ("no", 1), UVLOOP: ("thread", 0)}
SETTLE_S = 0.5  # the ready file starts the busy loop, in the other process after an interpreter's start
LOADS = ((1, 1), (16, 1))


def run(bench: Bench) -> Result:
    repository = models.identity(bench.models).path
    samples = interleave(
        [
            Block(f"{c}x{k}", name, partial(measure, bench, repository, name, c, k))
            for c, k in LOADS
            for name in CONTENDERS
        ],
        bench.rounds,
    )
    verdicts = []
    for c, k in LOADS:
        load = f"{c}x{k}"
        figure = f"p50 with a busy Python thread in the server process / in another one, {load}"
        verdicts.append(at_most(figure, samples.ratio(load, HERE, ELSEWHERE, "p50_us"), 1.2))
        ratio = samples.ratio(load, UVLOOP, ELSEWHERE, "p50_us")
        verdicts.append(
            contrast(f"the same under uvloop / in another process, --io-threads 1, {load}", ratio)
        )
    return Result(
        "gil",
        "FP32 [1,16] over gRPC, identity, with `while True: count = (count + 1) & 0xFFFF` beside it. Server and busy thread "
        f"share CPUs {bench.server_cpus} in every case, so that only the interpreter lock differs. A server for each block.",
        samples,
        verdicts,
        [
            ("p50_us", "p50, µs"),
            ("p99_us", "p99, µs"),
            ("qps", "requests/s"),
            ("server_cpu_cores", "CPUs in use by server and busy thread"),
        ],
    )


def measure(bench: Bench, repository: Path, name: str, connections: int, in_flight: int) -> Sample:
    """One server at a time: a second one's busy thread would be in the way."""
    busy, threads = CONTENDERS[name]
    command = [sys.executable, RIVALS / "busy_server.py", "--busy", busy]
    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(
            stack, repository, None, "--io-threads", str(threads), name=name, command=command
        )
        if server is None:
            return {}
        time.sleep(SETTLE_S)
        return bench.load(server, connections, in_flight, *bench.on_client_cpu())
