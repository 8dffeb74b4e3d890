"""What a deadline that passes in the queue and a cancellation cost those who wait: Engine, one process."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from harness.bench import Bench
from harness.blocks import Block, interleave, spread
from harness.processes import run_tool
from harness.report import Result, Verdict, at_most

PROBE = Path(__file__).with_name("expiry_probe.py")
LOAD, OURS = "a busy model", "fastserve"
ROUNDS = 10  # of a block, half a second each


def run(bench: Bench) -> Result:
    probe = partial(run_tool, [sys.executable, PROBE, str(ROUNDS)], None, limit_s=120)
    samples = interleave([Block(LOAD, OURS, probe)], bench.rounds)

    def verdict(what: str, metric: str, most: float, unit: str = " ms") -> Verdict:
        return at_most(what, spread(samples.values(LOAD, OURS, metric)), most, unit)

    return Result(
        "expiry",
        "Engine, a model that is busy for 400 ms without warning: requests with a deadline of 50 ms behind it, and a queue of "
        "one place whose request is cancelled.",
        samples,
        [
            verdict("answer after a deadline that passed in the queue, p99", "late_p99_ms", 10),
            verdict("place free after a cancellation, p99", "freed_p99_ms", 50),
            verdict("requests run after their deadline", "expired_executed", 0, ""),
        ],
        [
            ("late_worst_ms", "worst lateness, ms"),
            ("freed_worst_ms", "worst time until the place is free, ms"),
        ],
    )
