"""One block of `python_worker`: python python_worker_probe.py WHAT SECONDS. Prints one line of JSON.

worker_16, worker_0   requests/s of a Python model in a worker process, 16 calls in flight, batches of up to 16 rows or none
baseline              the same model and calls through multiprocessing, shared_memory and a Connection
beside_worker         p50 of an OpenVINO model (64 > 256 > 8, one row) beside a busy Python model
beside_process        the same beside the same loop in an unrelated process
"""

from __future__ import annotations

import json
import multiprocessing
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import shared_memory
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

import fastserve
from fastserve.worker.registration import register_workers

IN_FLIGHT = 16
FLOATS = 256  # of a request
BUSY = "import time\nwhile True: time.monotonic()"
FEATURES = 64  # of a row of the OpenVINO model

MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if x.flat[0] < 0:  # be busy for so many seconds
                until = time.monotonic() - float(x.flat[0])
                while time.monotonic() < until:
                    pass
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", x + np.float32(1))]))
        return responses
"""


def serve_baseline(connection: Connection, name: str, floats: int) -> None:
    """A slot per call in flight; the connection says which one."""
    memory = shared_memory.SharedMemory(name=name)
    slots = np.ndarray((memory.size // (8 * floats), 2, floats), np.float32, memory.buf)
    while (slot := connection.recv()) is not None:
        slots[slot, 1] = slots[slot, 0] + np.float32(1)
        connection.send(slot)


class Baseline:
    def __init__(self, in_flight: int, floats: int) -> None:
        self._memory = shared_memory.SharedMemory(create=True, size=in_flight * 8 * floats)
        self._slots = np.ndarray((in_flight, 2, floats), np.float32, self._memory.buf)
        self._connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve_baseline, args=(theirs, self._memory.name, floats))
        self._process.start()
        theirs.close()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(in_flight):
            self._free.put(slot)
        self._done = [threading.Semaphore(0) for _ in range(in_flight)]
        self._send = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self._done[self._connection.recv()].release()
            except (EOFError, OSError):
                return

    def infer(self, x: np.ndarray) -> np.ndarray:
        slot = self._free.get()
        self._slots[slot, 0] = x
        with self._send:
            self._connection.send(slot)
        self._done[slot].acquire()
        y = self._slots[slot, 1].copy()
        self._free.put(slot)
        return y

    def close(self) -> None:
        self._connection.send(None)
        self._process.join()
        self._memory.unlink()


def per_second(
    infer: Callable[[np.ndarray], np.ndarray], in_flight: int, floats: int, seconds: float
) -> float:
    stop = time.perf_counter() + seconds
    counts = [0] * in_flight

    def client(index: int) -> None:
        x = np.full(floats, index, np.float32)
        while time.perf_counter() < stop:
            y = infer(x)
            counts[index] += 1
        assert (y == x + 1).all()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(in_flight)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begin)


@contextmanager
def serving(rows: int) -> Iterator[fastserve.Engine]:
    with tempfile.TemporaryDirectory() as folder, fastserve.Engine() as engine:
        version = Path(folder) / "plus" / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(MODEL)
        register_workers(engine.core, allow_python_models=True)
        shape = (-1, FLOATS) if rows else (FLOATS,)
        inputs, outputs = ([fastserve.Tensor(name, "FP32", shape)] for name in "xy")
        engine.load("plus", version, backend="python", max_batch_rows=rows, inputs=inputs, outputs=outputs)
        yield engine


def write_native(path: Path) -> None:
    import openvino as ov
    from openvino import opset13 as op

    generator = np.random.default_rng(1)
    x = op.parameter([-1, FEATURES], np.float32, name="x")
    wide = op.relu(op.matmul(x, generator.random((FEATURES, 256), np.float32), False, False))
    y = op.matmul(wide, generator.random((256, 8), np.float32), False, False)
    y.output(0).set_names({"y"})
    x.output(0).set_names({"x"})
    ov.save_model(ov.Model([y], [x]), path)


def worker(rows: int, seconds: float) -> dict[str, float]:
    with serving(rows) as engine:

        def infer(x: np.ndarray) -> np.ndarray:
            return engine.infer("plus", {"x": x[None] if rows else x})["y"]

        return {"qps": per_second(infer, IN_FLIGHT, FLOATS, seconds)}


def baseline(seconds: float) -> dict[str, float]:
    by_hand = Baseline(IN_FLIGHT, FLOATS)
    try:
        return {"qps": per_second(by_hand.infer, IN_FLIGHT, FLOATS, seconds)}
    finally:
        by_hand.close()


def native_p50_us(engine: fastserve.Engine, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_native(Path(folder) / "model.xml")
        engine.load("native", folder, backend="openvino", max_batch_rows=8)
    x = np.zeros((1, FEATURES), np.float32)
    took = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        engine.infer("native", {"x": x})
        took.append(time.perf_counter() - begin)
    return {"p50_us": statistics.median(took) * 1e6}


def beside_worker(seconds: float) -> dict[str, float]:
    with serving(8) as engine:
        stop = threading.Event()

        def keep_busy() -> None:
            while not stop.is_set():
                engine.infer("plus", {"x": np.full((1, FLOATS), -0.1, np.float32)})

        thread = threading.Thread(target=keep_busy)
        thread.start()
        try:
            return native_p50_us(engine, seconds)
        finally:
            stop.set()
            thread.join()


def beside_process(seconds: float) -> dict[str, float]:
    with serving(8) as engine, subprocess.Popen([sys.executable, "-c", BUSY]) as busy:
        try:
            return native_p50_us(engine, seconds)
        finally:
            busy.kill()


MEASUREMENTS: dict[str, Callable[[float], dict[str, float]]] = {
    "worker_16": lambda seconds: worker(16, seconds),
    "worker_0": lambda seconds: worker(0, seconds),
    "baseline": baseline,
    "beside_worker": beside_worker,
    "beside_process": beside_process,
}

if __name__ == "__main__":
    print(json.dumps(MEASUREMENTS[sys.argv[1]](float(sys.argv[2]))))
