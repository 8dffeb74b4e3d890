"""Python models in worker processes: requests per second beside what a Python programmer would write by hand, and what a busy one
does to a native model of the same server."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from harness.bench import Bench
from harness.blocks import Block, interleave
from harness.processes import run_tool
from harness.report import Result, at_least, at_most

PROBE = Path(__file__).with_name("python_worker_probe.py")
LOAD = "16 in flight, 1 KiB"
BESIDE = "OpenVINO beside a busy loop"


def run(bench: Bench) -> Result:
    def probe(what: str) -> dict[str, Any]:
        return run_tool([sys.executable, PROBE, what, str(bench.seconds)], None, limit_s=bench.seconds + 120)

    blocks = [
        Block(LOAD, "worker, batches", partial(probe, "worker_16")),
        Block(LOAD, "worker, no batching", partial(probe, "worker_0")),
        Block(LOAD, "multiprocessing", partial(probe, "baseline")),
        Block(BESIDE, "in a worker", partial(probe, "beside_worker")),
        Block(BESIDE, "in another process", partial(probe, "beside_process")),
    ]
    samples = interleave(blocks, bench.rounds)
    return Result(
        "python_worker",
        "A model of Triton's Python interface that adds 1 to 256 FP32, called by 16 threads of one Python process; by hand: "
        "multiprocessing, shared_memory and a Connection.",
        samples,
        [
            *(
                at_least(
                    f"requests/s of a {contender} / by hand",
                    samples.ratio(LOAD, contender, "multiprocessing", "qps"),
                    2.0,
                )
                for contender in ("worker, batches", "worker, no batching")
            ),
            at_most(
                "p50 beside a busy Python model / beside the same loop in another process",
                samples.ratio(BESIDE, "in a worker", "in another process", "p50_us"),
                1.1,
            ),
        ],
        [("qps", "requests/s"), ("p50_us", "p50, µs")],
        [],
    )
