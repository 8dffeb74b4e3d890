"""ResNet-50 at 1 to 64 in flight: the server's own choice of batches against no batching and every fixed batch, on one server.

Every block serves a number of requests, not a time: replies come in bursts of a batch, and the end of a window of some seconds
falls between two bursts of 32. All contenders differ by a tenth or less, and single blocks by as much, so that the best of seven
is the luckiest of seven: who is the best is found in the other rounds, and the ratio to it taken in this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from functools import partial

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, Samples, Spread, interleave, spread
from harness.processes import BenchError, Server
from harness.report import Result, Verdict, at_least

IN_FLIGHT = (1, 2, 4, 8, 16, 32, 64)
OURS, AGAIN, UNBATCHED = "adaptive", "adaptive again", "no batching"
SHAPE = ("--input", "input", "--shape", "1,3,224,224")
LEAST_TURNS = 3  # of every client in a block


def run(bench: Bench) -> Result:
    cpus = bench.all_cpus
    properties = limit.openvino_properties(bench.precision, bench.streams, len(cpus))
    repository = models.resnet50_sweep(bench.models, properties)
    contenders = {OURS: "resnet50", UNBATCHED: "resnet50_1"}
    contenders |= {f"batch {rows}": f"resnet50_{rows}" for rows in models.FIXED}
    with contextlib.ExitStack() as stack:
        server = bench.start_fastserve(stack, repository.path, cpus)
        if server is None:
            raise BenchError("sweep wants fastserve")
        rate = _load(bench, server, 8, 64, "resnet50")["qps"]  # also ends the first requests' preparations
        blocks = []
        for n in IN_FLIGHT:
            count = n * max(LEAST_TURNS, math.ceil(bench.seconds * rate / n))
            here = {name: model for name, model in contenders.items() if useful(name, n)}
            # Ours at both ends, so that a drift of the machine meets it as it meets those between.
            blocks += [
                Block(f"{n} in flight", name, partial(_load, bench, server, n, count, model))
                for name, model in (here | {AGAIN: contenders[OURS]}).items()
            ]
        samples = interleave(blocks, bench.rounds)
    return Result(
        "sweep",
        f"ResNet-50 over gRPC, {bench.precision}, {bench.streams} streams, {len(cpus)} threads, one server with a model for each "
        "way to batch. Fixed batches: preferred_batch_size with at most 20 ms of waiting; those of more than twice what is in "
        "flight are left out. The best of the others is found in the other rounds (with one round: in this one).",
        samples,
        [_verdict(samples, n) for n in IN_FLIGHT],
        [("qps", "images/s"), ("p50_us", "p50, µs"), ("p99_us", "p99, µs")],
    )


def _load(bench: Bench, server: Server, in_flight: int, count: int, model: str) -> dict[str, object]:
    bench = dataclasses.replace(bench, seconds=max(bench.seconds, 60.0))  # how long it may take
    return bench.load(server, in_flight, 1, "--count", str(count), "--model", model, *SHAPE)


def useful(name: str, in_flight: int) -> bool:
    return not name.startswith("batch ") or int(name.split()[1]) <= 2 * in_flight


def _verdict(samples: Samples, in_flight: int) -> Verdict:
    load = f"{in_flight} in flight"
    rates = {name: samples.values(load, name, "qps") for name in samples.contenders()}
    ours = [(first + last) / 2 for first, last in zip(rates.pop(OURS), rates.pop(AGAIN), strict=True)]
    figure = f"images/s at {load}, adaptive / the best of the others"
    return at_least(
        figure, against_best(ours, {name: values for name, values in rates.items() if values}), 0.90
    )


def against_best(ours: list[float], others: Mapping[str, list[float]]) -> Spread | None:
    """Round by round, against the contender with the best mean over all other rounds."""
    ratios = []
    for number, rate in enumerate(ours):

        def elsewhere(name: str, here: int = number) -> float:
            values = others[name]
            rest = values[:here] + values[here + 1 :] or values
            return sum(rest) / len(rest)

        ratios.append(rate / others[max(others, key=elsewhere)][number])
    return spread(ratios)
