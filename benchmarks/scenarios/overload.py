"""More load than the device has room for: what still arrives in time, what a refusal costs, and how soon it is over."""

from __future__ import annotations

import contextlib
import re
import urllib.request
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import models
from harness.bench import Bench
from harness.blocks import Block, Sample, Samples, Spread, interleave, spread
from harness.processes import BenchError, Server, run_tool
from harness.report import Result, Verdict, at_least, at_most

GOOD_MS = 50
FACTORS = {"0.8x": 0.8, "1x": 1.0, "2x": 2.0, "3x": 3.0, "5x": 5.0}
GOODPUT = {"2x": 0.95, "3x": 0.90, "5x": 0.85}
HIGH_SHARE = 0.1
AFTER = "0.5x after 5x"
PRIORITIES = "3x, 10 % of high priority"
REFUSAL_CPU = "5x, a model that burns its time"


@dataclass(frozen=True)
class Contender:
    name: str
    model: str
    words: tuple[str, ...]  # of the load client


CONTENDERS = (
    Contender(f"deadline {GOOD_MS} ms", "overload", ("--deadline-ms", str(GOOD_MS))),
    Contender("target_p99_ms 25", "overload_target", ()),
)
BURNS = Contender("refusals", "overload_burn", ("--deadline-ms", str(GOOD_MS)))


def run(bench: Bench) -> Result:
    repository = models.overload(bench.models).path
    with contextlib.ExitStack() as stack:
        # All CPUs, or the device's thread, which sleeps, and the I/O thread, which refuses, would take turns.
        server = bench.start_fastserve(stack, repository, bench.all_cpus)
        if server is None:
            raise BenchError("overload wants fastserve")
        blocks = [
            Block(load, c.name, partial(steady, bench, server, c, load))
            for load in FACTORS
            for c in CONTENDERS
        ]
        blocks += [Block(AFTER, c.name, partial(after, bench, server, c)) for c in CONTENDERS]
        blocks += [Block(PRIORITIES, c.name, partial(priorities, bench, server, c)) for c in CONTENDERS]
        blocks.append(Block(REFUSAL_CPU, BURNS.name, partial(refusal_cpu, bench, server)))
        samples = interleave(blocks, bench.rounds)
        executed = expired_executed(server)
    return Result(
        "overload",
        f"Open loop over gRPC, Poisson arrivals, FP32 [1,16], one instance, batches of one row that take 2 ms (a sleep); good: "
        f"answered within {GOOD_MS} ms of the time at which the request was due. Peak: the closed loop's rate at 4 in flight, "
        "measured before each block. `deadline`: the client sends a grpc-timeout and the model has no target; `target`: the "
        "model has a target and the client says nothing.",
        samples,
        verdicts(samples, executed),
        [
            ("goodput_share", "good answers/s, share of peak"),
            ("p99_ms", "p99 of the admitted, ms"),
            ("refused_share", "refused, share of the offered"),
            ("refusal_p99_ms", "p99 of the refusals, ms"),
            ("late_share", "answered late or expired, share of the offered"),
            ("settled_after_s", "99 % good again after, s"),
            ("high_admitted", "high priority answered, share"),
            ("refusal_cpu_us", "server CPU-µs per refusal"),
            ("served_cpu_us", "server CPU-µs per served request"),
            ("client_cpu_share", "load client's CPU, share of its core"),
        ],
    )


def verdicts(samples: Samples, executed: float) -> list[Verdict]:
    found: list[Verdict] = []
    for contender in (c.name for c in CONTENDERS):
        found += [
            at_least(
                f"goodput at {load} / peak, {contender}",
                samples.spread(load, contender, "goodput_share"),
                share,
            )
            for load, share in GOODPUT.items()
        ]
        calm = samples.values("0.8x", contender, "p99_ms")
        for load in GOODPUT:
            pairs = zip(samples.values(load, contender, "p99_ms"), calm, strict=False)
            share = spread([p99 / max(2 * before, GOOD_MS) for p99, before in pairs])
            found.append(
                at_most(f"p99 of the admitted at {load} / max(2 × p99 at 0.8x, 50 ms), {contender}", share, 1)
            )
            refusals = samples.spread(load, contender, "refusal_p99_ms")
            found.append(at_most(f"p99 of the refusals at {load}, {contender}", refusals, 10, " ms"))
        settled = samples.spread(AFTER, contender, "settled_after_s")
        found.append(at_most(f"normal again after 5x, {contender}", settled, 1, " s"))
        high = samples.spread(PRIORITIES, contender, "high_admitted")
        found.append(at_least(f"high priority answered at 3x, {contender}", high, 0.99))
    cost = samples.spread(REFUSAL_CPU, BURNS.name, "refusal_cpu_ratio")
    found.append(at_most("server CPU of a refusal / of a served request (2 ms of burning)", cost, 0.10))
    found.append(
        at_most("requests executed after their deadline (counter)", Spread(executed, executed, executed), 0)
    )
    return found


def peak_of(bench: Bench, server: Server, model: str = "overload") -> float:
    """Without a deadline, and of a model without a target: nothing is refused."""
    return float(bench.load(server, 4, 1, "--model", model, *bench.on_client_cpu())["qps"])


def offer(
    bench: Bench, server: Server, contender: Contender, phases: list[tuple[float, float]], *extra: str
) -> list[Sample]:
    """One sample for each phase (requests/s, seconds)."""
    text = ",".join(f"{rate:.3f}:{seconds:.3f}" for rate, seconds in phases)
    words: list[str | Path] = [bench.tool("open_load"), "--grpc", server.addresses["grpc"], "--phases", text]
    words += ["--model", contender.model, "--good-ms", str(GOOD_MS), *contender.words, *extra]
    words += ["--connections", "32", "--in-flight", "90", "--server-pid", server.pids, *bench.on_client_cpu()]
    result = run_tool(words, None, limit_s=sum(seconds for _, seconds in phases) + 60)
    return list(result["phases"])


def steady(bench: Bench, server: Server, contender: Contender, load: str) -> Sample:
    peak = peak_of(bench, server)
    rate = peak * FACTORS[load]
    # The first phase is not counted: queues fill, rates are learned.
    _, phase = offer(bench, server, contender, [(rate, max(0.5, bench.warmup_s)), (rate, 2 * bench.seconds)])
    return described(phase, peak)


def after(bench: Bench, server: Server, contender: Contender) -> Sample:
    peak = peak_of(bench, server)
    _, phase = offer(
        bench, server, contender, [(5 * peak, bench.seconds), (0.5 * peak, max(2.0, bench.seconds))]
    )
    return {**described(phase, peak), "goodput_share": None}


def priorities(bench: Bench, server: Server, contender: Contender) -> Sample:
    peak = peak_of(bench, server)
    phases = [(3 * peak, max(0.5, bench.warmup_s)), (3 * peak, 2 * bench.seconds)]
    _, phase = offer(bench, server, contender, phases, "--high-share", str(HIGH_SHARE))
    return {**described(phase, peak), "high_admitted": phase["high_ok"] / max(phase["high_offered"], 1)}


def refusal_cpu(bench: Bench, server: Server) -> Sample:
    """Two equations with two unknowns: at half of the peak nothing is refused, at five times nearly everything."""
    peak = peak_of(bench, server, BURNS.model)
    half = offer(bench, server, BURNS, [(0.5 * peak, 2 * bench.seconds)])[0]
    much = offer(bench, server, BURNS, [(5 * peak, 2 * bench.seconds)])[0]
    served = half["server_cpu_s"] / max(ran(half), 1)
    refused = max(much["server_cpu_s"] - ran(much) * served, 0) / max(much["refused"], 1)
    return {
        "served_cpu_us": 1e6 * served,
        "refusal_cpu_us": 1e6 * refused,
        "refusal_cpu_ratio": refused / served,
        "phases": [half, much],
    }


def ran(phase: Sample) -> int:
    return int(phase["good"] + phase["late"])


def described(phase: Sample, peak: float) -> Sample:
    offered = max(phase["offered"], 1)
    ok, refusals = phase["ok"]["p99_us"], phase["refusals"]["p99_us"]
    return {
        "peak_per_s": peak,
        "goodput_share": phase["goodput_per_s"] / peak,
        "p99_ms": ok / 1e3 if ok is not None else None,
        "refused_share": phase["refused"] / offered,
        "refusal_p99_ms": refusals / 1e3 if refusals is not None else None,
        "late_share": (phase["late"] + phase["expired"]) / offered,
        "settled_after_s": phase["settled_after_s"],
        "client_cpu_share": phase["client_cpu_s"] / phase["seconds"],
        "phase": phase,
    }


def expired_executed(server: Server) -> float:
    with urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r"^fastserve_requests_expired_executed_total(?:\{.*\})? (\S+)", text, re.M)
    if not found:
        raise BenchError("the server has no counter fastserve_requests_expired_executed_total")
    return sum(float(value) for value in found)
