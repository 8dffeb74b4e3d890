"""ResNet-50 at 1 to 64 in flight: the server's own choice of batches against no batching and every fixed batch, on one server."""

from __future__ import annotations

import contextlib
import dataclasses
from functools import partial

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, Samples, Spread, interleave, spread
from harness.processes import BenchError
from harness.report import Result, at_least

IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
OURS, UNBATCHED = "adaptive", "no batching"
SHAPE = ("--input", "input", "--shape", "1,3,224,224")


def run(bench: Bench) -> Result:
    bench = dataclasses.replace(bench, warmup_s=max(1.0, bench.warmup_s))
    cpus = bench.all_cpus
    properties = limit.openvino_properties(bench.precision, bench.streams, len(cpus))
    repository = models.resnet50_sweep(bench.models, properties)
    contenders = {OURS: "resnet50", UNBATCHED: "resnet50_1"}
    contenders |= {f"batch {rows}": f"resnet50_{rows}" for rows in models.FIXED}
    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, repository.path, cpus)
        if server is None:
            raise BenchError("sweep wants fastserve")
        samples = interleave(
            [
                Block(f"{n} in flight", name, partial(bench.load, server, n, 1, "--model", model, *SHAPE))
                for n in IN_FLIGHT
                for name, model in contenders.items()
                if useful(name, n)
            ],
            bench.rounds,
        )
    return Result(
        "sweep",
        f"ResNet-50 over gRPC, {bench.precision}, {bench.streams} streams, {len(cpus)} threads, one server with a model for each "
        "way to batch. Fixed batches: preferred_batch_size with at most 20 ms of waiting; those of more than twice what is in "
        "flight are left out.",
        samples,
        [
            at_least(
                f"images/s at {n} in flight, adaptive / the best of the others",
                against_best(samples, n),
                0.90,
            )
            for n in IN_FLIGHT
        ],
        [("qps", "images/s"), ("p50_us", "p50, µs"), ("p99_us", "p99, µs")],
    )


def useful(name: str, in_flight: int) -> bool:
    return not name.startswith("batch ") or int(name.split()[1]) <= 2 * in_flight


def against_best(samples: Samples, in_flight: int) -> Spread | None:
    """Against the contender that is the best over all rounds: the best of each round would be the luckiest of seven."""
    load = f"{in_flight} in flight"
    others = [name for name in samples.contenders() if name != OURS and samples.values(load, name, "qps")]
    medians = {name: value.median for name in others if (value := samples.spread(load, name, "qps"))}
    if not medians:
        return spread([])
    return samples.ratio(load, OURS, max(medians, key=lambda name: medians[name]), "qps")
