"""One block of `embed` in a process of its own.

python embed_probe.py check|openvino|engine|queue|async|threads1|threads8 MODEL PROPERTIES_JSON SECONDS WARMUP

openvino, engine: one caller, blocking. queue, async: 64 in flight from one thread, by OpenVINO's AsyncInferQueue and by
Engine.infer_async; both read every result. threadsN: N Python threads in Engine.infer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

IN_FLIGHT = 64


def measure(call: Callable[[], Any], seconds: float, warmup_s: float) -> dict[str, Any]:
    clock = time.perf_counter_ns
    end = clock() + int(warmup_s * 1e9)
    while clock() < end:
        call()
    took: list[int] = []
    started = clock()
    end = started + int(seconds * 1e9)
    now = started
    while now < end:
        call()
        after = clock()
        took.append(after - now)
        now = after
    return figures(took, (now - started) / 1e9)


def figures(took_ns: list[int], seconds: float) -> dict[str, Any]:
    us = np.asarray(took_ns) / 1e3
    p50, p90, p99 = np.percentile(us, [50, 90, 99])
    return {
        "requests": len(took_ns),
        "qps": len(took_ns) / seconds,
        "p50_us": float(p50),
        "p90_us": float(p90),
        "p99_us": float(p99),
        "max_us": float(us.max()),
    }


def measure_queue(queue: Any, x: np.ndarray, seconds: float, warmup_s: float) -> dict[str, Any]:
    """What OpenVINO's documentation shows: a callback that reads the result, a loop that starts requests."""
    clock = time.perf_counter_ns
    results: list[float] = [0.0]
    took: list[int] = []

    def ended(request: Any, started: int) -> None:
        results[0] = request.get_output_tensor(0).data[0, 0]
        took.append(clock() - started)

    queue.set_callback(ended)
    for length in (warmup_s, seconds):
        took.clear()
        began = clock()
        end = began + int(length * 1e9)
        while (now := clock()) < end:
            queue.start_async({0: x}, now)
        queue.wait_all()
        lasted = (clock() - began) / 1e9
    return figures(took, lasted)


async def measure_async(engine: Any, x: np.ndarray, seconds: float, warmup_s: float) -> dict[str, Any]:
    clock = time.perf_counter_ns
    opens = clock() + int(warmup_s * 1e9)
    closes = opens + int(seconds * 1e9)
    took: list[int] = []
    results: list[float] = [0.0]
    inputs = {"input": x}

    async def caller() -> None:
        started = clock()
        while started < closes:
            results[0] = (await engine.infer_async("mlp", inputs))["output"][0, 0]
            ended = clock()
            if opens <= ended < closes:
                took.append(ended - started)
            started = ended

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return figures(took, seconds)


def measure_threads(count: int, call: Callable[[], Any], seconds: float, warmup_s: float) -> dict[str, Any]:
    clock = time.perf_counter_ns
    opens = clock() + int(warmup_s * 1e9)
    closes = opens + int(seconds * 1e9)
    took: list[list[int]] = [[] for _ in range(count)]

    def caller(mine: list[int]) -> None:
        now = clock()
        while now < closes:
            call()
            after = clock()
            if opens <= after < closes:
                mine.append(after - now)
            now = after

    threads = [threading.Thread(target=caller, args=(mine,)) for mine in took]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = [len(mine) for mine in took]
    return figures([t for mine in took for t in mine], seconds) | {"least_of_a_thread": min(counts)}


def with_openvino(what: str, model: str, properties: dict[str, str], seconds: float, warmup_s: float) -> Any:
    import openvino

    x = np.random.default_rng(0).random((1, 16), dtype=np.float32)
    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({0: [1, 16]})
    compiled = core.compile_model(network, "CPU", properties)
    if what == "queue":
        return measure_queue(openvino.AsyncInferQueue(compiled, IN_FLIGHT), x, seconds, warmup_s)
    request = compiled.create_infer_request()
    return measure(lambda: request.infer({0: x})[0], seconds, warmup_s)


def with_engine(what: str, model: str, properties: dict[str, str], seconds: float, warmup_s: float) -> Any:
    from fastserve import Engine

    x = np.random.default_rng(0).random((1, 16), dtype=np.float32)
    with Engine() as engine:
        engine.load("mlp", Path(model), backend="openvino", parameters=properties)
        inputs = {"input": x}

        def call() -> np.ndarray:
            return engine.infer("mlp", inputs)["output"]

        if what == "check":
            return {"shape": list(call().shape)}
        if what == "async":
            result = asyncio.run(measure_async(engine, x, seconds, warmup_s))
        elif what.startswith("threads"):
            result = measure_threads(int(what.removeprefix("threads")), call, seconds, warmup_s)
        else:
            result = measure(call, seconds, warmup_s)
        return result | {"properties": engine.model("mlp").properties}


def main() -> None:
    what, model, properties_json, seconds, warmup_s = sys.argv[1:]
    measured = with_openvino if what in {"openvino", "queue"} else with_engine
    print(json.dumps(measured(what, model, json.loads(properties_json), float(seconds), float(warmup_s))))


if __name__ == "__main__":
    main()
