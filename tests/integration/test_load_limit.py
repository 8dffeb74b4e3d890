"""Loads that take too long, on the real engine: what served serves on, the late result is destroyed, the number is free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import fastserve
from fastserve.lifecycle import Reconciler, VersionSpec
from fastserve.lifecycle.reconciler import STILL_RUNS
from fastserve.lifecycle.retry import RetryRule


class Gate:
    """Models of variant "slow" stand still while they load, until it opens."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.closed: list[str] = []

    def model_class(self) -> type[Any]:
        gate = self

        class Model:
            def __init__(self, load: fastserve.BackendLoad) -> None:
                self.variant = load.parameters["variant"]
                if self.variant == "slow":
                    assert gate.open.wait(30)

            def execute(self, batch: fastserve.Batch) -> Mapping[str, Any]:
                return {"y": batch.inputs["x"] * (2 if self.variant == "slow" else 1)}

            def close(self) -> None:
                gate.closed.append(self.variant)

        return Model


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def engine(gate: Gate) -> Iterator[fastserve.Engine]:
    with fastserve.Engine() as made:
        tensors = [fastserve.Tensor("x", "FP32", (1,))], [fastserve.Tensor("y", "FP32", (1,))]
        made.register_backend("gate", gate.model_class(), inputs=tensors[0], outputs=tensors[1])
        yield made
        gate.open.set()


def spec(variant: str, version: int = 1) -> VersionSpec:
    return VersionSpec("m", version, "gate", parameters=(("variant", variant),))


async def eventually(what: Any) -> None:
    for _ in range(3000):
        if what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("in vain")


async def test_a_load_beyond_its_limit_is_thrown_away(engine: fastserve.Engine, gate: Gate) -> None:
    reconciler = Reconciler(engine.core, load_timeout_s=0.3, retry=RetryRule(limit=0))
    reconciler.set_model("m", {1: spec("quick")})
    await reconciler.settle_model("m")
    reconciler.set_model("m", {1: spec("slow")})
    await reconciler.settle_model("m")
    (state,) = reconciler.model_states()
    why = f"loading took longer than 0.3 s (--load-timeout-secs); {STILL_RUNS}"
    assert (state.state, state.reason) == ("READY", f"serves on as it was; the new one failed: {why}")
    assert reconciler.hung == 1
    x = np.array([3], np.float32)
    assert engine.infer("m", {"x": x})["y"] == 3
    gate.open.set()
    await eventually(lambda: reconciler.hung == 0)
    assert engine.infer("m", {"x": x})["y"] == 3, "the late form serves"
    assert gate.closed == ["slow"]
    reconciler.set_model("m", {1: spec("slow")})  # somebody asks again
    await reconciler.settle_model("m")
    assert engine.infer("m", {"x": x})["y"] == 6
    await reconciler.close()


async def test_another_form_is_loaded_beside_the_late_one(engine: fastserve.Engine, gate: Gate) -> None:
    reconciler = Reconciler(engine.core, load_timeout_s=0.3, retry=RetryRule(limit=0))
    reconciler.set_model("m", {1: spec("slow")})
    await reconciler.settle_model("m")
    assert [s.state for s in reconciler.model_states()] == ["FAILED"]
    reconciler.set_model("m", {1: spec("quick")})
    await reconciler.settle_model("m")
    assert [s.state for s in reconciler.model_states()] == ["READY"]
    gate.open.set()
    await eventually(lambda: gate.closed == ["slow"])
    assert engine.infer("m", {"x": np.array([3], np.float32)})["y"] == 3
    await asyncio.wait_for(reconciler.close(), 10)


async def test_nobody_waits_for_a_load_that_hangs_at_the_end(engine: fastserve.Engine, gate: Gate) -> None:
    reconciler = Reconciler(engine.core, load_timeout_s=0.1, retry=RetryRule(limit=0))
    reconciler.set_model("m", {1: spec("slow")})
    await reconciler.settle_model("m")
    await asyncio.wait_for(reconciler.close(), 10)
    assert reconciler.hung == 1


async def test_threads_are_gone_after_loads_and_unloads(engine: fastserve.Engine) -> None:
    reconciler = Reconciler(engine.core, loader_threads=4)
    for _ in range(3):
        reconciler.set_model("m", {v: spec("quick", v) for v in (1, 2, 3, 4)})
        await reconciler.settle_model("m")
        reconciler.set_model("m", {})
        await reconciler.settle_model("m")
    await eventually(lambda: not any(t.name.startswith("fastserve-") for t in threading.enumerate()))
    await reconciler.close()
