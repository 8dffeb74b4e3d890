"""How late a deadline is answered that passes in the queue, and how soon a cancelled request gives its place back.

python expiry_probe.py ROUNDS

One line of JSON: p99 and worst of each in ms, and how many requests ran after their deadline (0).
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from fastserve import Batch, DeadlineExceeded, Engine, Tensor, Unavailable

BUSY_S = 0.4  # one request in so many takes so long, unforeseen; what is foreseen would be refused, not wait
DEADLINE_S = 0.05
QUICK, SLOW = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)


def run(batch: Batch) -> dict[str, np.ndarray]:
    x = batch.inputs["x"]
    time.sleep(BUSY_S if x.any() else 1e-4)
    return {"y": x}


def lateness_ms(engine: Engine) -> float:
    started = time.perf_counter()
    try:
        engine.infer("busy", {"x": QUICK}, timeout=DEADLINE_S)
    except DeadlineExceeded:
        return (time.perf_counter() - started - DEADLINE_S) * 1e3
    raise SystemExit("a request whose deadline passed in the queue was answered")


def release_ms(engine: Engine) -> float:
    """The queue has one place: another request is taken as soon as the cancelled one has left it."""
    waiting = engine.submit("narrow", {"x": QUICK})
    while True:  # the place is taken
        try:
            engine.submit("narrow", {"x": QUICK}).cancel()
        except Unavailable:
            break
    started = time.perf_counter()
    waiting.cancel()
    while True:
        try:
            engine.submit("narrow", {"x": QUICK}).cancel()
            return (time.perf_counter() - started) * 1e3
        except Unavailable:
            continue


def main() -> None:
    rounds = int(sys.argv[1])
    late: list[float] = []
    freed: list[float] = []
    with Engine() as engine:
        tensors = {"inputs": [Tensor("x", "FP32", (-1, 4))], "outputs": [Tensor("y", "FP32", (-1, 4))]}
        engine.register_backend("sleeper", run, max_batch_rows=1, **tensors)
        engine.load("busy", backend="sleeper")
        engine.load("narrow", backend="sleeper", max_queue_requests=1)
        for _ in range(rounds):
            for name in ("busy", "narrow"):
                for _ in range(50):
                    engine.infer(name, {"x": QUICK})
                engine.submit(name, {"x": SLOW})
            time.sleep(0.02)  # until they run
            late += [lateness_ms(engine) for _ in range(3)]
            freed.append(release_ms(engine))
            time.sleep(BUSY_S)
        expired = engine.core.statistics("busy", 1).expired_executed
    print(
        json.dumps(
            {
                "late_p99_ms": float(np.percentile(late, 99)),
                "late_worst_ms": max(late),
                "freed_p99_ms": float(np.percentile(freed, 99)),
                "freed_worst_ms": max(freed),
                "expired_executed": expired,
            }
        )
    )


if __name__ == "__main__":
    main()
