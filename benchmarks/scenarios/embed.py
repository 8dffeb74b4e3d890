"""The engine inside a Python program: what a blocking call adds to a bare infer request, 64 calls in flight against OpenVINO's
AsyncInferQueue, and eight Python threads against one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import models
from harness import limit
from harness.bench import Bench
from harness.blocks import Block, interleave, spread
from harness.processes import BenchError, run_tool
from harness.report import Result, at_least, at_most

PROBE = Path(__file__).with_name("embed_probe.py")
LOAD = "MLP, 1 caller"
ASYNC = "MLP, 64 in flight from one thread"
THREADS = "MLP, Python threads"


def run(bench: Bench) -> Result:
    properties = limit.openvino_properties("f32", 1, 1)
    model = models.mlp(bench.models).model_file

    def bare() -> dict[str, Any]:
        return limit.measure(bench, model, ("1x1",), 1, 1, "--sync", precision="f32")["1x1"]

    def probe(what: str) -> dict[str, Any]:
        command: list[str | Path] = [
            sys.executable,
            PROBE,
            what,
            model,
            json.dumps(properties),
            str(bench.seconds),
            str(bench.warmup_s),
        ]
        return run_tool(command, None, limit_s=bench.seconds + bench.warmup_s + 120)

    contenders: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
        (LOAD, "bare C++", bare),
        (LOAD, "bare Python", partial(probe, "openvino")),
        (ASYNC, "AsyncInferQueue", partial(probe, "queue")),
    ]
    try:
        probe("check")
        contenders += [
            (LOAD, "Engine.infer", partial(probe, "engine")),
            (ASYNC, "Engine.infer_async", partial(probe, "async")),
            (THREADS, "1 thread", partial(probe, "threads1")),
            (THREADS, "8 threads", partial(probe, "threads8")),
        ]
    except BenchError as error:
        bench.remark(f"the engine was not measured: {str(error).splitlines()[-1]}")
    samples = interleave([Block(load, name, measure) for load, name, measure in contenders], bench.rounds)

    def added(to: str) -> list[float]:
        ours = samples.values(LOAD, "Engine.infer", "p50_us")
        return [a - b for a, b in zip(ours, samples.values(LOAD, to, "p50_us"), strict=False)]

    result = Result(
        "embed",
        "MLP 16→64→10, FP32 [1,16], 1 stream, 1 thread, one caller, blocking, not pinned; numpy in and out. Bare C++: "
        "infer() on a filled request; bare Python: the same through OpenVINO's own binding, input set each time. 64 in flight: "
        "AsyncInferQueue of 64 jobs with a callback, against 64 tasks on an asyncio loop; every result is read.",
        samples,
        [
            at_most("p50 of Engine.infer − bare infer request in C++", spread(added("bare C++")), 5, " µs"),
            at_least(
                "64 in flight: calls/s of Engine.infer_async / AsyncInferQueue",
                samples.ratio(ASYNC, "Engine.infer_async", "AsyncInferQueue", "qps"),
                1.0,
            ),
            at_least(
                "calls/s of 8 Python threads / of 1",
                samples.ratio(THREADS, "8 threads", "1 thread", "qps"),
                0.9,
            ),
        ],
        [("p50_us", "p50, µs"), ("p99_us", "p99, µs"), ("qps", "calls/s")],
        [],
    )
    contrast = spread(added("bare Python"))
    if contrast:
        bench.remark(f"for contrast, Engine.infer − a bare infer request in Python: {contrast} µs")
    return result
