"""The reconciler with an engine that loads when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle import ModelState, Reconciler, VersionSpec


class FakeEngine:
    """As _core.Engine has it. `failing`: (model, version) -> message; `gates`: loads wait for these."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failing: dict[tuple[str, int], str] = {}
        self.gates: dict[tuple[str, int], threading.Event] = {}
        self.stuck = False
        self.states: dict[tuple[str, int], Any] = {}
        self.loading = 0
        self.most_loading = 0
        self._lock = threading.Lock()

    def load(self, spec: Any, progress: Callable[[float, str], None] | None = None) -> None:
        key = (spec.model, spec.version)
        with self._lock:
            self.loading += 1
            self.most_loading = max(self.most_loading, self.loading)
            self.log.append(f"load {spec.model} {spec.version}")
        try:
            if progress is not None:
                progress(0.5, "compiling")
            if key in self.gates:
                assert self.gates[key].wait(10)
            if key in self.failing:
                if self.states.get(key) is None or self.states[key].state != "READY":
                    self._set(key, "FAILED", self.failing[key])
                raise InvalidArgument(self.failing[key])
            self._set(key, "READY")
        finally:
            with self._lock:
                self.loading -= 1

    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None:
        self.log.append(f"unload {model} {version}")
        if self.stuck:
            raise RuntimeError("the device is gone")
        if (model, version) not in self.states:
            raise NotFound("gone")
        del self.states[model, version]

    def status(self) -> list[Any]:
        return list(self.states.values())

    def _set(self, key: tuple[str, int], state: str, reason: str = "") -> None:
        self.states[key] = SimpleNamespace(
            model=key[0], version=key[1], state=state, reason=reason, progress=1.0
        )


def spec(version: int, model: str = "m", variant: str = "") -> VersionSpec:
    return VersionSpec(model, version, "identity", parameters=(("variant", variant),))


def wanted(*specs: VersionSpec) -> dict[str, dict[int, VersionSpec]]:
    result: dict[str, dict[int, VersionSpec]] = {}
    for item in specs:
        result.setdefault(item.model, {})[item.version] = item
    return result


async def settle(
    reconciler: Reconciler, *specs: VersionSpec, failures: list[ModelState] | None = None
) -> None:
    await reconciler.set_wanted(wanted(*specs), failures or [])
    await asyncio.wait_for(reconciler.settle(), 10)


def states(reconciler: Reconciler) -> list[tuple[str, int | None, str, str]]:
    return [(s.model, s.version, s.state, s.reason) for s in reconciler.model_states()]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


async def test_nothing_wanted_is_settled_at_once(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    await settle(reconciler)
    assert states(reconciler) == []
    await reconciler.close()


async def test_what_is_wanted_gets_ready(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1), spec(2), spec(1, "n"))
    assert sorted(engine.log) == ["load m 1", "load m 2", "load n 1"]
    assert states(reconciler) == [("m", 1, "READY", ""), ("m", 2, "READY", ""), ("n", 1, "READY", "")]
    assert reconciler.spec("m", 2) == spec(2)
    assert reconciler.spec("m", 3) is None
    await settle(reconciler, spec(1), spec(2), spec(1, "n"))
    assert len(engine.log) == 3  # nothing to do
    await reconciler.close()


async def test_a_failing_model_does_not_stop_the_others(engine: FakeEngine) -> None:
    engine.failing["bad", 1] = "model.onnx: not a model"
    reconciler = Reconciler(engine, loader_threads=1)
    await settle(reconciler, spec(1, "bad"), spec(1, "good"))
    assert states(reconciler) == [("bad", 1, "FAILED", "model.onnx: not a model"), ("good", 1, "READY", "")]
    await reconciler.close()


async def test_what_failed_is_not_tried_again_until_its_spec_changes(engine: FakeEngine) -> None:
    engine.failing["m", 1] = "no"
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    await settle(reconciler, spec(1))
    await settle(reconciler, spec(1), spec(1, "n"))
    assert engine.log.count("load m 1") == 1
    del engine.failing["m", 1]
    await settle(reconciler, spec(1, variant="other"), spec(1, "n"))
    assert engine.log.count("load m 1") == 2
    assert states(reconciler)[0] == ("m", 1, "READY", "")
    await reconciler.close()


async def test_a_new_version_comes_before_the_old_one_goes(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    await settle(reconciler, spec(2))
    assert engine.log == ["load m 1", "load m 2", "unload m 1"]
    assert states(reconciler) == [("m", 2, "READY", "")]
    await reconciler.close()


async def test_a_new_version_that_fails_leaves_the_old_one(engine: FakeEngine) -> None:
    engine.failing["m", 2] = "cut file"
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    await settle(reconciler, spec(2))
    assert states(reconciler) == [("m", 1, "READY", ""), ("m", 2, "FAILED", "cut file")]
    await settle(reconciler, spec(1))  # the bad version is taken away again
    assert states(reconciler) == [("m", 1, "READY", "")]
    await reconciler.close()


async def test_a_reload_that_fails_says_so_and_serves_on(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1, variant="a"))
    engine.failing["m", 1] = "bad weights"
    await settle(reconciler, spec(1, variant="b"))
    (state,) = reconciler.model_states()
    assert state.state == "READY"
    assert state.reason == "serves on as it was; the new one failed: bad weights"
    assert reconciler.spec("m", 1) == spec(1, variant="a")
    assert engine.log.count("load m 1") == 2
    await reconciler.close()


async def test_failures_before_the_engine_are_kept(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    broken = ModelState("broken", None, "FAILED", "broken/config.pbtxt:7: unknown field 'x'")
    await settle(reconciler, spec(1), failures=[broken])
    assert reconciler.model_states()[0] == broken
    await settle(reconciler, spec(1))
    assert states(reconciler) == [("m", 1, "READY", "")]
    await reconciler.close()


async def test_progress_arrives_on_the_loop(engine: FakeEngine) -> None:
    seen: list[tuple[Any, ...]] = []
    gate = engine.gates["m", 1] = threading.Event()
    arrived = asyncio.Event()

    def on_progress(*event: Any) -> None:
        seen.append((*event, threading.current_thread() is threading.main_thread()))
        arrived.set()

    reconciler = Reconciler(engine, on_progress=on_progress)
    await reconciler.set_wanted(wanted(spec(1)))
    await asyncio.wait_for(arrived.wait(), 10)
    assert seen == [("m", 1, 0.5, "compiling", True)]
    assert reconciler.model_states() == [ModelState("m", 1, "LOADING", "compiling", 0.5)]
    gate.set()
    await asyncio.wait_for(reconciler.settle(), 10)
    assert states(reconciler) == [("m", 1, "READY", "")]
    await reconciler.close()


@pytest.mark.parametrize("threads", [1, 2])
async def test_so_many_load_at_once(engine: FakeEngine, threads: int) -> None:
    both = threading.Barrier(threads)

    class Gate(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return both.wait(10) >= 0

    for version in (1, 2, 3, 4):
        engine.gates["m", version] = Gate()
    reconciler = Reconciler(engine, loader_threads=threads)
    await settle(reconciler, *(spec(version) for version in (1, 2, 3, 4)))
    assert engine.most_loading == threads
    await reconciler.close()


async def test_the_wanted_set_may_change_while_a_version_loads(engine: FakeEngine) -> None:
    gate = engine.gates["m", 2] = threading.Event()
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    await reconciler.set_wanted(wanted(spec(2)))
    await reconciler.set_wanted(wanted(spec(3)))
    gate.set()
    await asyncio.wait_for(reconciler.settle(), 10)
    assert states(reconciler) == [("m", 3, "READY", "")]
    await reconciler.close()


async def test_an_unload_that_fails_is_not_repeated(engine: FakeEngine) -> None:
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    engine.stuck = True
    await settle(reconciler)
    assert engine.log.count("unload m 1") == 1
    engine.stuck = False
    await settle(reconciler)
    assert engine.log.count("unload m 1") == 2
    assert states(reconciler) == []
    await reconciler.close()


async def test_any_exception_is_a_failure_of_that_version(engine: FakeEngine) -> None:
    def load(spec: Any, progress: Any = None) -> None:
        raise MemoryError

    engine.load = load  # type: ignore[method-assign]
    reconciler = Reconciler(engine)
    await settle(reconciler, spec(1))
    assert states(reconciler) == [("m", 1, "FAILED", "MemoryError")]
    await reconciler.close()


async def test_close_waits_for_what_is_in_flight_and_starts_nothing(engine: FakeEngine) -> None:
    gate = engine.gates["m", 2] = threading.Event()
    reconciler = Reconciler(engine, loader_threads=1)
    await reconciler.set_wanted(wanted(spec(2)))
    closing = asyncio.create_task(reconciler.close())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await asyncio.wait_for(closing, 10)
    assert engine.log == ["load m 2"]
    await reconciler.set_wanted(wanted(spec(5)))
    assert engine.log == ["load m 2"]
