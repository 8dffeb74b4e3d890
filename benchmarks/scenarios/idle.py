"""5,000 connections that say nothing: what they cost in memory and CPU, and what they take from those that talk."""

from __future__ import annotations

import contextlib
import resource
import time
from functools import partial
from pathlib import Path

import models
from harness import observe
from harness.bench import Bench
from harness.blocks import Block, Sample, interleave
from harness.idle import idle_connections
from harness.processes import BenchError, Server
from harness.report import Result, at_least, at_most

IDLE = {"grpc": 2500, "rest": 2500}
COUNT = sum(IDLE.values())
ALONE, BESIDE = "alone", f"beside {COUNT:,} idle"
SPARE_FILES = 500  # of the server: connections that talk, libraries, pipes
SETTLE_S = 0.5  # last packets, first tick
KB = {protocol: f"kb_per_{protocol}_connection" for protocol in IDLE}


def run(bench: Bench) -> Result:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)  # run.py has raised it as far as it goes
    if allowed < COUNT + SPARE_FILES:
        raise BenchError(
            f"a process may open {allowed:,} files here (ulimit -Hn): want {COUNT + SPARE_FILES:,}"
        )
    repository = models.identity(bench.models).path
    with contextlib.ExitStack() as stack:
        blocks = [Block("cost", BESIDE, partial(cost, bench, repository))]
        server = bench.start_fastserve(stack, repository)
        for load, words in (("64x1 gRPC", ()), ("64x1 REST", ("--rest",))):
            for name in (ALONE, BESIDE) if server else ():
                blocks.append(Block(load, name, partial(ask, bench, server, name == BESIDE, words)))
        samples = interleave(blocks, bench.rounds)
    return Result(
        "idle",
        f"{IDLE['grpc']:,} gRPC and {IDLE['rest']:,} HTTP connections, each with one FP32 [1,16] request behind it. Memory: "
        "resident bytes of the server process after and before, kernel memory not counted; a new server each time, after "
        f"a load of 64 connections. CPU: over {idle_s(bench):.0f} s in which no client says anything, minus the same without "
        "connections. Rates: 64 connections that talk, opened after the idle ones.",
        samples,
        [
            at_most(
                f"memory per idle connection, half gRPC, half HTTP, {COUNT:,} of them",
                samples.spread("cost", BESIDE, "kb_per_connection"),
                32,
                " KB",
            ),
            at_most(
                f"server CPU for {COUNT:,} idle connections, share of one core",
                samples.spread("cost", BESIDE, "idle_cpu_percent"),
                0.1,
                " %",
            ),
            *(
                at_least(
                    f"requests/s at {load} beside {COUNT:,} idle / alone",
                    samples.ratio(load, BESIDE, ALONE, "qps"),
                    0.95,
                )
                for load in ("64x1 gRPC", "64x1 REST")
            ),
        ],
        [
            ("kb_per_connection", "KB per connection"),
            *((KB[protocol], f"… of {protocol}, KB") for protocol in IDLE),
            ("idle_cpu_percent", "CPU for the idle connections, % of a core"),
            ("idle_cpu_percent_before", "CPU of the idle server itself, % of a core"),
            ("qps", "requests/s"),
            ("p50_us", "p50, µs"),
            ("server_cpu_us_per_request", "server CPU-µs per request"),
        ],
    )


def idle_s(bench: Bench) -> float:
    return min(10.0, 10 / 3 * bench.seconds)  # 10 s for the windows of 3 s that are usual


def ask(bench: Bench, server: Server, beside: bool, words: tuple[str, ...]) -> Sample:
    with contextlib.ExitStack() as stack:
        if beside:
            open_all(bench, stack, server)
        address = (server.addresses["http"],) if "--rest" in words else ()
        return bench.load(server, 64, 1, *words, *address, *bench.on_client_cpu())


def open_all(bench: Bench, stack: contextlib.ExitStack, server: Server) -> None:
    for protocol, count in IDLE.items():
        stack.enter_context(idle_connections(bench, server, protocol, count))
    time.sleep(SETTLE_S)


def cost(bench: Bench, repository: Path) -> Sample:
    """Of a new server: one that had the connections before keeps some of their memory."""
    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, repository)
        if server is None:
            return {}
        pid = server.process.pid
        for words in ((), ("--rest", server.addresses["http"])):
            bench.load(server, 64, 1, *words, *bench.on_client_cpu())
        time.sleep(SETTLE_S)
        cpu_before = idle_cpu_percent(pid, idle_s(bench))
        resident = observe.resident_bytes(pid)
        sample: Sample = {"idle_cpu_percent_before": cpu_before, "resident_before_bytes": resident}
        total = 0
        for protocol, count in IDLE.items():
            stack.enter_context(idle_connections(bench, server, protocol, count))
            time.sleep(SETTLE_S)
            now = observe.resident_bytes(pid)
            sample[KB[protocol]] = (now - resident) / count / 1024
            total, resident = total + now - resident, now
        sample["idle_cpu_percent"] = idle_cpu_percent(pid, idle_s(bench)) - cpu_before
        total += observe.resident_bytes(pid) - resident  # what came late counts as well
        return {**sample, "kb_per_connection": total / COUNT / 1024}


def idle_cpu_percent(pid: int, seconds: float) -> float:
    before, started = observe.cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (observe.cpu_s(pid) - before) / (time.monotonic() - started)
