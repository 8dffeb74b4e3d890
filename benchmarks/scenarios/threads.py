"""One and two native I/O threads on a machine of two cores: what can be shown there of "N threads scale with N cores"."""

from __future__ import annotations

import contextlib
from functools import partial

import models
from harness import observe
from harness.bench import Bench
from harness.blocks import Block, Sample, interleave
from harness.processes import Server
from harness.report import Result, at_most, contrast

CPU = "server_cpu_us_per_request"
ONE, TWO = "1 I/O thread", "2 I/O threads"
SMALL, TEXT = "64x1 gRPC", "16x1 REST, JSON"
# The second costs the server far more than the client, which sends a prepared text and reads none: there the client leaves
# the second core to the server.
LOADS = {
    SMALL: (64, ("--model", "identity")),
    TEXT: (16, ("--model", "identity_any", "--shape", "1,4096", "--json")),
}

FEW_CPUS = (
    "this machine has {} CPUs for server, instance thread and client together: a rate twice as high cannot be seen here. What "
    "can: the threads share the work evenly, a request costs no more, and where the client is cheap two threads use what one "
    "leaves idle."
)


def run(bench: Bench) -> Result:
    with contextlib.ExitStack() as stack:
        repository = models.identity(bench.models).path
        servers = [
            bench.start_fastserve(stack, repository, bench.all_cpus, "--io-threads", str(n), name=name)
            for n, name in ((1, ONE), (2, TWO))
        ]
        samples = interleave(
            [
                Block(load, server.name, partial(ask, bench, server, load))
                for load in LOADS
                for server in servers
                if server
            ],
            bench.rounds,
        )
    verdicts = [
        at_most(f"share of I/O CPU of the busier of 2 I/O threads, {load}", share, 0.6)
        for load in LOADS
        for share in [samples.spread(load, TWO, "busiest_share")]
    ]
    for load, metric, what in (
        (TEXT, "qps", "requests/s"),
        (SMALL, "qps", "requests/s"),
        (SMALL, CPU, "server CPU per request"),
        (TEXT, CPU, "server CPU per request"),
    ):
        ratio = samples.ratio(load, TWO, ONE, metric)
        verdicts.append(contrast(f"{what}, 2 I/O threads / 1, {load}", ratio))
    cpus = len(bench.all_cpus)
    return Result(
        "threads",
        f"Server and client share CPUs {bench.all_cpus}, nothing is pinned. 64 gRPC connections with FP32 [1,16], and 16 REST "
        "connections with FP32 [1,4096] as JSON text both ways, whose numbers the I/O thread reads and writes.",
        samples,
        verdicts,
        [
            ("qps", "requests/s"),
            (CPU, "server CPU-µs per request"),
            ("server_cpu_cores", "server CPUs in use"),
            ("client_cpu_us_per_request", "client CPU-µs per request"),
            ("busiest_share", "share of I/O CPU of the busier thread"),
            ("p50_us", "p50, µs"),
        ],
        [FEW_CPUS.format(cpus)] if cpus < 4 else [],
    )


def ask(bench: Bench, server: Server, load: str) -> Sample:
    connections, words = LOADS[load]
    if "REST" in load:
        words = (*words, "--rest", server.addresses["http"])
    before = observe.cpu_s_by_thread(server.process.pid)
    sample = bench.load(server, connections, 1, *words)
    after = observe.cpu_s_by_thread(server.process.pid)
    spent = {
        name: seconds - before.get(name, 0.0)
        for name, seconds in after.items()
        if observe.IO_THREAD.match(name)
    }
    busiest = max(spent.values()) / sum(spent.values()) if spent else None
    return {**sample, "io_cpu_s_by_thread": spent, "busiest_share": busiest}
