"""Graph models of Python on the GPU lane, on the simulated CUDA driver: each program in a process that finds that driver."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.support import simulated_cuda

from fastserve import _core

pytestmark = pytest.mark.skipif(not _core.has_gpu_lane, reason="this build has no GPU lane")

# y = 3 x on the simulated driver's own kernel "scale"; one row cannot be captured.
PRELUDE = """
import ctypes as c
import numpy as np
sim = c.CDLL("libcuda.so.1")
from fastserve import Engine, _core
from fastserve.errors import FastserveError
from fastserve.gpu.source import Captured, DeviceTensor, add_graph_backend

class Scale:
    inputs = [_core.TensorSpec("x", "FP32", [-1, 4])]
    outputs = [_core.TensorSpec("y", "FP32", [-1, 4])]
    max_batch_rows = 4
    buckets = (1, 2, 4)
    lane_scratch_bytes = 0
    owns_inputs = owns_outputs = False
    weights_bytes = 1000
    platform = "scaled"
    properties = {"precision": "FP32"}
    closed = 0

    def __init__(self, load):
        self.load = load
        self.ran = []
        load.progress(0.5, "reading")

    def launch(self, memory, rows, x, y):
        words = (c.c_uint64 * 4)(y, x, rows * 4, 0x40400000)
        assert sim.simulated_cuda_launch(c.c_size_t(memory.stream), b"scale", words, 4) == 0

    def capture(self, memory, rows):
        if rows == 1:
            return Captured(why_not="one row loops")
        stream = c.c_void_p(memory.stream)
        self.launch(memory, rows, memory.inputs[0], memory.outputs[0])
        assert sim.cuStreamSynchronize(stream) == 0
        assert sim.cuStreamBeginCapture_v2(stream, 1) == 0
        self.launch(memory, rows, memory.inputs[0], memory.outputs[0])
        graph = c.c_void_p()
        assert sim.cuStreamEndCapture(stream, c.byref(graph)) == 0
        return Captured(graph=graph.value)

    def run(self, memory, rows, inputs):
        self.ran.append(rows)
        self.launch(memory, rows, inputs[0].address, memory.outputs[0])
        return ()

    def close(self):
        Scale.closed += 1

def infer(engine, rows):
    x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    return np.array_equal(engine.infer("m", {"x": x})["y"], 3 * x)
"""


def run(code: str, **settings: int) -> list[str]:
    """What the program prints, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env=simulated_cuda.environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_is_captured_served_and_closed() -> None:
    assert run("""
made = []
def open_it(load):
    made.append(Scale(load))
    return made[-1]
told = []
engine = Engine()
add_graph_backend(engine.core, "scale", open_it)
model = engine.load("m", backend="scale", parameters={"lanes": "2"}, progress=lambda part, what: told.append(what))
print(all(infer(engine, rows) for rows in (1, 2, 3, 4)))
print(model.properties["graphs"], "|", model.properties["lanes"], "|", model.properties["precision"])
print("reading" in told, "lane 1, 4 rows" in told)
load = made[0].load
print(load.device, load.lanes, load.graphs, load.device_uuid.startswith("GPU-"), load.spec.model)
print(set(made[0].ran))
(counts,) = _core.gpu_lane_counts()
print(counts["unpinned_copies"], counts["lost"], counts["graph_batches"] > 0, counts["fallback_batches"] > 0)
from fastserve.metrics.gpu_lanes import gpu_lanes
samples = {(s.name, s.labels.get("how", "")): s.value for family in gpu_lanes() for s in family.samples}
print(samples["fastserve_gpu_unpinned_copies_total", ""], samples["fastserve_gpu_lost", ""],
      samples["fastserve_gpu_batches_total", "graph"] == counts["graph_batches"])
engine.unload("m")
print(Scale.closed, sim.simulated_cuda_count(b"execs"), sim.simulated_cuda_count(b"streams"))
""") == [
        "True",
        "2 of 3 sizes; 1 rows: one row loops | 2 | FP32",
        "True True",
        "0 2 True True m",
        "{1}",
        "0 False True True",
        "0 0 True",
        "1 0 0",
    ]


def test_what_python_raises_and_returns_wrongly_is_told() -> None:
    assert run("""
from fastserve.errors import NotFound
class Raises(Scale):
    def capture(self, memory, rows):
        raise ValueError("no such layer")
class Wrong(Scale):
    def run(self, memory, rows, inputs):
        return [DeviceTensor(memory.outputs[0], (rows, 5), rows * 20)]
def missing(load):
    raise NotFound("path: no model.plan in it")
engine = Engine()
for name, opener in (("raises", Raises), ("missing", missing), ("wrong", Wrong)):
    add_graph_backend(engine.core, name, opener)
    try:
        engine.load("m", backend=name)
    except FastserveError as error:
        print(type(error).__name__, error.message)
print(Scale.closed)
""") == [
        "Internal ValueError: no such layer",
        "NotFound path: no model.plan in it",
        'Internal warm-up with 1 rows of zeros failed: outputs["y"].shape: got [1,5], want [-1,4]',
        "2",
    ]


def test_a_lost_gpu_is_seen_and_its_model_is_not_closed() -> None:
    lines = run("""
engine = Engine()
add_graph_backend(engine.core, "scale", Scale)
engine.load("m", backend="scale")
print(_core.gpu_faults())
sim.simulated_cuda_fail(b"cuGraphLaunch", 1, 700)
for _ in range(2):
    try:
        infer(engine, 4)
    except FastserveError as error:
        print(type(error).__name__, "is lost" in error.message)
(fault,) = _core.gpu_faults()
print(fault["device"], "CUDA_ERROR_ILLEGAL_ADDRESS" in fault["reason"], fault["batch"])
engine.unload("m")
print(Scale.closed, sim.simulated_cuda_count(b"dead:cuMemFree"))
engine.close()
""")
    assert lines == [
        "[]",
        "Unavailable True",
        "Unavailable True",
        "0 True model 'm' version 1, 4 rows run as 4, requests (no id)",
        "0 0",
    ]


def test_no_gpu_is_a_plain_refusal() -> None:
    (line,) = run(
        """
engine = Engine()
add_graph_backend(engine.core, "scale", Scale)
try:
    engine.load("m", backend="scale")
except FastserveError as error:
    print(type(error).__name__)
""",
        devices=0,
    )
    assert line == "FailedPrecondition"
