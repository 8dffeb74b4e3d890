"""One ResNet-50 image at a time, in turns call by call: a bare OpenVINO request, Engine.infer, infer_async, gRPC to a server.

python turns_probe.py MODEL PROPERTIES_JSON GRPC_ADDRESS|none

Answers `SECONDS WARMUP` on stdin with one line of JSON, {"bare OpenVINO": {"p50_us": ...}, ...}; ends with stdin. Runs that are
seconds apart differ by a millisecond on a machine that others use too; calls that follow one another share its weather. The
turns begin with another contender each time, so that nobody always follows the same one.

Bare: start_async and wait on a request that was filled once; a second one of the same shows how far two equals are apart.
gRPC twice: over a plain socket with frames made beforehand (harness/lean_grpc.py), which is what the server, the kernel and the
wire add, and with grpcio, bytes made beforehand and an identity serializer, which is what its client adds to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from fastserve import Engine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.lean_grpc import LeanGrpc

Call = Callable[[], Awaitable[Any]]
BARE, BARE_AGAIN = "bare OpenVINO", "bare OpenVINO again"
INFER, INFER_ASYNC = "Engine.infer", "Engine.infer_async"
GRPC, GRPCIO = "fastserve gRPC, plain socket", "fastserve gRPC, grpcio"
SHAPE = (1, 3, 224, 224)
METHOD = "/inference.GRPCInferenceService/ModelInfer"


def bare(model: str, properties: dict[str, str], x: np.ndarray) -> Call:
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({0: list(SHAPE)})
    hint = {"PERFORMANCE_HINT": "LATENCY"} if properties.get("NUM_STREAMS") == "1" else {}
    own = {
        name: value for name, value in properties.items() if name.isupper()
    }  # the others are the backend's
    request = core.compile_model(network, "CPU", {**hint, **own}).create_infer_request()
    request.get_input_tensor().data[:] = x

    async def call() -> None:
        request.start_async()
        request.wait()

    return call


def blocking(function: Callable[[], object]) -> Call:
    async def call() -> None:
        function()

    return call


def over_grpc(address: str, x: np.ndarray, stack: contextlib.ExitStack) -> dict[str, Call]:
    import grpc

    from fastserve import protos

    request = protos.message_class("inference.ModelInferRequest")(
        model_name="resnet50", raw_input_contents=[x.tobytes()]
    )
    request.inputs.add(name="input", datatype="FP32", shape=SHAPE)
    sent = request.SerializeToString()
    lean = stack.enter_context(contextlib.closing(LeanGrpc(address, METHOD, sent)))
    channel = stack.enter_context(grpc.insecure_channel(address))
    infer = channel.unary_unary(METHOD)  # no serializer: bytes both ways
    return {GRPC: blocking(lean.call), GRPCIO: blocking(lambda: infer(sent))}


async def take_turns(calls: dict[str, Call], seconds: float, warmup_s: float) -> dict[str, Any]:
    clock = time.perf_counter_ns
    took: dict[str, list[int]] = {name: [] for name in calls}
    order = list(calls)
    opens = clock() + int(warmup_s * 1e9)
    closes = opens + int(seconds * 1e9)
    now = clock()
    while now < closes:
        counts = now >= opens
        for name in order:
            started = clock()
            await calls[name]()
            now = clock()
            if counts:
                took[name].append(now - started)
        order.append(order.pop(0))
    us = {name: np.asarray(times) / 1e3 for name, times in took.items()}
    return {name: summary(times, us[BARE]) for name, times in us.items()}


def summary(us: np.ndarray, bare_us: np.ndarray) -> dict[str, Any]:
    """`added_us`: the median of the differences, turn by turn."""
    if not len(us):
        return {"requests": 0, "p50_us": None, "p99_us": None, "added_us": None}
    p50, p99 = np.percentile(us, [50, 99])
    added = np.median(us - bare_us)
    return {"requests": len(us), "p50_us": float(p50), "p99_us": float(p99), "added_us": float(added)}


def main() -> None:
    model, properties_json, address = sys.argv[1:]
    properties: dict[str, str] = json.loads(properties_json)
    x = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(Engine())
        engine.load("resnet50", Path(model), backend="openvino", max_batch_rows=32, parameters=properties)
        calls: dict[str, Call] = {
            BARE: bare(model, properties, x),
            INFER: blocking(lambda: engine.infer("resnet50", {"input": x})),
            INFER_ASYNC: lambda: engine.infer_async("resnet50", {"input": x}),
            BARE_AGAIN: bare(model, properties, x),
        }
        if address != "none":
            calls |= over_grpc(address, x, stack)
        words = engine.model("resnet50").properties.get("lone", "one row is no question here")
        print(json.dumps({"ready": True, "lone": words}), flush=True)
        for line in sys.stdin:
            seconds, warmup_s = map(float, line.split())
            print(json.dumps(asyncio.run(take_turns(calls, seconds, warmup_s))), flush=True)


if __name__ == "__main__":
    main()
