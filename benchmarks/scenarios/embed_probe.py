"""One block of `embed` in a process of its own.

python embed_probe.py engine|openvino|check MODEL PROPERTIES_JSON SECONDS WARMUP
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


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
    us = np.asarray(took) / 1e3
    p50, p90, p99 = np.percentile(us, [50, 90, 99])
    return {
        "requests": len(took),
        "qps": len(took) / ((now - started) / 1e9),
        "p50_us": float(p50),
        "p90_us": float(p90),
        "p99_us": float(p99),
        "max_us": float(us.max()),
    }


def main() -> None:
    what, model, properties_json, seconds, warmup_s = sys.argv[1:]
    properties: dict[str, str] = json.loads(properties_json)
    x = np.random.default_rng(0).random((1, 16), dtype=np.float32)
    if what == "openvino":
        import openvino

        core = openvino.Core()
        network = core.read_model(model)
        network.reshape({0: [1, 16]})
        request = core.compile_model(network, "CPU", properties).create_infer_request()
        result = measure(lambda: request.infer({0: x})[0], float(seconds), float(warmup_s))
    else:
        from fastserve import Engine

        with Engine() as engine:
            engine.load("mlp", Path(model), backend="openvino", parameters=properties)
            inputs = {"input": x}
            if what == "check":
                result = {"shape": list(engine.infer("mlp", inputs)["output"].shape)}
            else:
                result = measure(
                    lambda: engine.infer("mlp", inputs)["output"], float(seconds), float(warmup_s)
                )
                result["properties"] = engine.model("mlp").properties
    print(json.dumps(result))


if __name__ == "__main__":
    main()
