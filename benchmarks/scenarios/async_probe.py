"""Blocks of `resnet50` through Engine.infer_async, in a process of its own that stays between them.

python async_probe.py MODEL PROPERTIES_JSON

Answers `N SECONDS WARMUP` on stdin, N in flight, with one line of JSON; ends with stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastserve import Engine


async def measure(engine: Engine, in_flight: int, seconds: float, warmup_s: float) -> dict[str, Any]:
    clock = time.perf_counter_ns
    opens = clock() + int(warmup_s * 1e9)
    closes = opens + int(seconds * 1e9)
    ends: list[tuple[int, int]] = []  # when, after how long

    async def caller(x: np.ndarray) -> None:
        started = clock()
        while started < closes:
            await engine.infer_async("resnet50", {"input": x})
            ended = clock()
            ends.append((ended, ended - started))
            started = ended

    images = [np.random.default_rng(i).random((1, 3, 224, 224), dtype=np.float32) for i in range(in_flight)]
    await asyncio.gather(*map(caller, images))
    return summary(ends, opens, closes)


def summary(ends: list[tuple[int, int]], opens: int, closes: int) -> dict[str, Any]:
    """Answers come in bursts of a batch: the window goes from the end of one burst to the end of another."""
    before = [ended for ended, _ in ends if ended < opens]
    counted = [(ended, took) for ended, took in ends if opens <= ended < closes]
    if not counted:
        return {"requests": 0, "qps": 0.0, "p50_us": None, "p99_us": None}
    window_s = (counted[-1][0] - max(before, default=opens)) / 1e9
    p50, p99 = np.percentile([took / 1e3 for _, took in counted], [50, 99])
    return {
        "requests": len(counted),
        "qps": len(counted) / window_s,
        "p50_us": float(p50),
        "p99_us": float(p99),
    }


def main() -> None:
    model, properties = sys.argv[1:]
    with Engine() as engine:
        engine.load(
            "resnet50", Path(model), backend="openvino", max_batch_rows=32, parameters=json.loads(properties)
        )
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            in_flight, seconds, warmup_s = line.split()
            print(
                json.dumps(asyncio.run(measure(engine, int(in_flight), float(seconds), float(warmup_s)))),
                flush=True,
            )


if __name__ == "__main__":
    main()
