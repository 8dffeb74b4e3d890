"""Loads and unloads by request: folders on disk, and an engine that loads when the test says so."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastserve.errors import Aborted, Internal, InvalidArgument, NotFound, Unavailable
from fastserve.lifecycle import ModelControl, Reconciler, Repositories
from fastserve.lifecycle.load_override import Override
from fastserve.lifecycle.settled_scan import SETTLE_S, SettledScan


class FakeEngine:
    """As _core.Engine has it. `failing`: model -> message; `gates`: loads of a model wait for these."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.failing: dict[str, str] = {}
        self.gates: dict[str, threading.Event] = {}
        self.stuck = False
        self.states: dict[tuple[str, int], Any] = {}

    def load(self, spec: Any, progress: Callable[[float, str], None] | None = None) -> None:
        key = (spec.model, spec.version)
        self.log.append(f"load {spec.model} {spec.version}")
        if spec.model in self.gates:
            assert self.gates[spec.model].wait(10)
        if spec.model in self.failing:
            if key not in self.states:
                self._set(key, "FAILED", self.failing[spec.model])
            raise InvalidArgument(self.failing[spec.model])
        self._set(key, "READY")

    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None:
        self.log.append(f"unload {model} {version}")
        if self.stuck:
            raise RuntimeError("the device is gone")
        del self.states[model, version]

    def status(self) -> list[Any]:
        return list(self.states.values())

    def _set(self, key: tuple[str, int], state: str, reason: str = "") -> None:
        self.states[key] = SimpleNamespace(
            model=key[0], version=key[1], state=state, reason=reason, progress=1.0
        )


class Harness:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = FakeEngine()
        self.reconciler = Reconciler(self.engine)
        self.slept: Callable[[float], None] = lambda _: None
        self.control = self.controlling(explicit=True)

    def controlling(self, *, explicit: bool) -> ModelControl:
        """`slept` is what happens between the two looks of a reload."""
        repositories = Repositories((self.root,))
        settled = SettledScan(repositories, sleep=lambda seconds: self.slept(seconds))
        return ModelControl(
            self.reconciler, repositories, explicit=explicit, max_operations=3, settled=settled
        )

    def put(self, model: str, *versions: int, config: str = "") -> None:
        for version in versions:
            (self.root / model / str(version)).mkdir(parents=True, exist_ok=True)
        path = self.root / model / "config.pbtxt"
        path.write_text('backend: "identity"\nversion_policy { all {} }\n' + config)

    async def states(self, model: str) -> list[tuple[int | None, str, str]]:
        return [(s.version, s.state, s.reason) for s in await self.control.states() if s.model == model]


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path)
    yield made
    for gate in made.engine.gates.values():
        gate.set()
    await made.control.close()
    await made.reconciler.close()


async def beginning(harness: Harness, line: str) -> None:
    async with asyncio.timeout(5):
        while line not in harness.engine.log:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_load_unload_and_the_index(harness: Harness) -> None:
    harness.put("m", 1, 2)
    assert await harness.states("m") == [(None, "", "")]
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", ""), (2, "READY", "")]
    await harness.control.unload("m")
    assert await harness.states("m") == [(1, "UNLOADED", "unloaded"), (2, "UNLOADED", "unloaded")]
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", ""), (2, "READY", "")]


async def test_what_has_not_changed_is_not_loaded_again(harness: Harness) -> None:
    harness.put("m", 1, 2)
    await harness.control.load("m")
    await harness.control.load("m")
    assert sorted(harness.engine.log) == ["load m 1", "load m 2"]


async def test_changed_files_load_that_version_alone(harness: Harness) -> None:
    harness.put("m", 1, 2)
    weights = harness.root / "m" / "1" / "weights"
    weights.write_text("a")
    await harness.control.load("m")
    harness.engine.log.clear()
    weights.write_text("longer")
    await harness.control.load("m")
    assert harness.engine.log == ["load m 1"]
    os.utime(weights, ns=(1, 1))  # the same content: nothing to load
    await harness.control.load("m")
    assert harness.engine.log == ["load m 1"]


async def test_versions_come_and_go(harness: Harness) -> None:
    harness.put("m", 1)
    await harness.control.load("m")
    harness.put("m", 3)
    (harness.root / "m" / "1").rmdir()
    await harness.control.load("m")
    assert harness.engine.log == ["load m 1", "load m 3", "unload m 1"]  # never without a version
    assert await harness.states("m") == [(1, "UNLOADED", "unloaded"), (3, "READY", "")]


async def test_a_failed_load_is_tried_again(harness: Harness) -> None:
    harness.put("m", 1)
    harness.engine.failing["m"] = "no memory"
    for _ in range(2):
        with pytest.raises(InvalidArgument) as caught:
            await harness.control.load("m")
        assert str(caught.value) == (
            "load failed for model 'm': version 1 is at UNAVAILABLE state: no memory;"
        )
    assert await harness.states("m") == [(1, "FAILED", "no memory")]
    del harness.engine.failing["m"]
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", "")]


async def test_a_failed_reload_leaves_the_old_and_is_tried_again(harness: Harness) -> None:
    harness.put("m", 1)
    await harness.control.load("m")
    harness.engine.failing["m"] = "no memory"
    harness.put("m", config="max_batch_size: 2")
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="no memory"):
            await harness.control.load("m")
        assert await harness.states("m") == [
            (1, "READY", "serves on as it was; the new one failed: no memory")
        ]
    harness.put("m")  # as it was: there is nothing to load
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", "")]
    assert harness.engine.log == ["load m 1"] * 3


async def test_a_broken_configuration_leaves_what_serves(harness: Harness) -> None:
    harness.put("m", 1, 2)
    await harness.control.load("m")
    harness.put("m", config="nonsense: 1")
    with pytest.raises(InvalidArgument) as caught:
        await harness.control.load("m")
    reason = "m/config.pbtxt:3: unknown field 'nonsense'"
    assert str(caught.value).startswith(f"load failed for model 'm': {reason}")
    states = await harness.states("m")
    assert [(v, s) for v, s, _ in states] == [(1, "READY"), (2, "READY")]
    assert all(reason in why for _, _, why in states)
    harness.put("m")
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", ""), (2, "READY", "")]
    assert harness.engine.log == ["load m 1", "load m 2"] or harness.engine.log == ["load m 2", "load m 1"]


async def test_a_model_that_was_never_right_has_its_reason_in_the_index(harness: Harness) -> None:
    harness.put("m", 1, config="nonsense: 1")
    with pytest.raises(InvalidArgument, match="nonsense"):
        await harness.control.load("m")
    ((version, state, reason),) = await harness.states("m")
    assert (version, state) == (None, "FAILED")
    assert "nonsense" in reason
    await harness.control.unload("m")
    assert await harness.states("m") == [(None, "", "")]


async def test_unknown_models(harness: Harness) -> None:
    with pytest.raises(NotFound, match="failed to load 'm', failed to poll from model repository"):
        await harness.control.load("m")
    await harness.control.unload("m")
    assert harness.engine.log == []


async def test_a_repository_that_is_gone_is_not_the_client_s_fault(harness: Harness) -> None:
    harness.root.rename(harness.root.with_name("elsewhere"))
    with pytest.raises(Unavailable, match="the model repository cannot be read") as caught:
        await harness.control.load("m")
    assert str(harness.root) not in str(caught.value)
    assert await harness.control.states() == []


async def test_an_unload_that_fails_says_what_is_left(harness: Harness) -> None:
    harness.put("m", 1, 2)
    await harness.control.load("m")
    harness.engine.stuck = True
    with pytest.raises(Internal, match="failed to unload 'm', versions that are still available: 1,2"):
        await harness.control.unload("m")
    harness.engine.stuck = False
    await harness.control.unload("m")
    assert await harness.states("m") == [(1, "UNLOADED", "unloaded"), (2, "UNLOADED", "unloaded")]


async def test_only_in_mode_explicit(harness: Harness) -> None:
    harness.put("m", 1)
    control = ModelControl(harness.reconciler, Repositories((harness.root,)), explicit=False)
    for operation in (control.load, control.unload):
        with pytest.raises(Unavailable, match="explicit model load / unload is not allowed if polling is"):
            await operation("m")
    assert harness.engine.log == []


# --- at the same time


async def test_a_newer_operation_takes_the_place_of_one_that_waits(harness: Harness) -> None:
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    first = asyncio.create_task(harness.control.load("m"))
    await beginning(harness, "load m 1")
    second = asyncio.create_task(harness.control.unload("m"))
    await asyncio.sleep(0)
    third = asyncio.create_task(harness.control.load("m"))
    with pytest.raises(Aborted, match="a newer load of model 'm' took the place of this one before it began"):
        await asyncio.wait_for(second, 5)
    assert harness.engine.log == ["load m 1"]
    gate.set()
    await asyncio.wait_for(asyncio.gather(first, third), 5)
    assert harness.engine.log == ["load m 1"]  # the third finds that nothing has changed
    last = asyncio.create_task(harness.control.unload("m"))
    await asyncio.wait_for(last, 5)
    assert harness.engine.log == ["load m 1", "unload m 1"]
    assert harness.control._turns.idle


async def test_operations_that_wait_for_the_same_share_it(harness: Harness) -> None:
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    first = asyncio.create_task(harness.control.load("m"))
    await beginning(harness, "load m 1")
    harness.put("m", 1, config="nonsense: 1")
    others = [asyncio.create_task(harness.control.load("m")) for _ in range(2)]
    await asyncio.sleep(0)
    others[0].cancel()
    gate.set()
    await asyncio.wait_for(first, 5)
    with pytest.raises(InvalidArgument, match="nonsense"):
        await asyncio.wait_for(others[1], 5)


async def test_models_do_not_wait_for_each_other(harness: Harness) -> None:
    harness.put("slow", 1)
    harness.put("quick", 1)
    gate = harness.engine.gates["slow"] = threading.Event()
    slow = asyncio.create_task(harness.control.load("slow"))
    await beginning(harness, "load slow 1")
    await asyncio.wait_for(harness.control.load("quick"), 5)
    await asyncio.wait_for(harness.control.unload("quick"), 5)
    assert not slow.done()
    gate.set()
    await asyncio.wait_for(slow, 5)


async def test_a_load_goes_on_when_nobody_waits_for_it(harness: Harness) -> None:
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    load = asyncio.create_task(harness.control.load("m"))
    await beginning(harness, "load m 1")
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    gate.set()
    await asyncio.wait_for(harness.reconciler.settle(), 5)
    assert await harness.states("m") == [(1, "READY", "")]


async def test_a_load_of_what_the_start_is_loading_waits_for_it(harness: Harness) -> None:
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    scan = Repositories((harness.root,)).scan({"m"})
    await harness.reconciler.set_wanted(scan.wanted)
    await beginning(harness, "load m 1")
    load = asyncio.create_task(harness.control.load("m"))
    await asyncio.sleep(0.05)
    assert not load.done()
    gate.set()
    await asyncio.wait_for(load, 5)
    assert harness.engine.log == ["load m 1"]


async def test_so_many_operations_and_no_more(harness: Harness) -> None:
    """The limit of the harness is 3."""
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    tasks = [asyncio.create_task(harness.control.load("m")) for _ in range(2)]
    await beginning(harness, "load m 1")
    tasks.append(asyncio.create_task(harness.control.load("m")))  # the third: at the limit
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="3 loads and unloads run or wait, want fewer than 3"):
        await harness.control.load("other")
    assert harness.control.refused == 1
    gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    await harness.control.unload("m")


async def test_at_the_end_what_waits_is_refused(harness: Harness) -> None:
    harness.put("m", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    first = asyncio.create_task(harness.control.load("m"))
    await beginning(harness, "load m 1")
    second = asyncio.create_task(harness.control.load("m"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(harness.control.close())
    ending = asyncio.create_task(harness.reconciler.close())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.wait_for(asyncio.gather(closing, ending), 5)
    for task in (first, second):
        with pytest.raises(Unavailable, match="shutting down"):
            await task
    with pytest.raises(Unavailable, match="shutting down"):
        await harness.control.unload("m")


# --- what start, poll and reload found


async def test_what_is_applied_waits_for_the_operation_that_runs(harness: Harness) -> None:
    harness.put("m", 1)
    harness.put("other", 1)
    gate = harness.engine.gates["m"] = threading.Event()
    load = asyncio.create_task(harness.control.load("m"))
    await beginning(harness, "load m 1")
    await harness.control.apply(Repositories((harness.root,)).scan({"other"}).models, ["m"])
    await beginning(harness, "load other 1")
    assert harness.reconciler.wanted("m") != {}
    gate.set()
    await asyncio.wait_for(load, 5)
    await asyncio.wait_for(harness.reconciler.settle(), 5)
    assert await harness.states("m") == [(1, "UNLOADED", "unloaded")]
    assert await harness.states("other") == [(1, "READY", "")]


async def test_a_reload_says_whether_anything_is_different(harness: Harness) -> None:
    control = harness.controlling(explicit=False)
    harness.put("m", 1)
    assert await control.reload()
    assert not await control.reload()
    harness.put("m", 2)
    assert await control.reload()
    (harness.root / "m").rename(harness.root.with_name("gone"))
    assert await control.reload()
    await asyncio.wait_for(harness.reconciler.settle(), 5)
    assert harness.engine.states == {}


async def test_a_reload_leaves_out_what_is_being_written(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    control = harness.controlling(explicit=False)
    harness.put("m", 1)
    harness.put("other", 1)
    assert await control.reload()
    waited = []

    def goes_on(seconds: float) -> None:
        waited.append(seconds)
        (harness.root / "m/2/model.onnx").write_text("three quarters")
        (harness.root / "m/1/added").write_text("half")
        (harness.root / "other/config.pbtxt").write_text("half of a")

    harness.slept = goes_on
    before = dict(harness.reconciler.wanted("m"))
    harness.put("m", 2)
    (harness.root / "m/2/model.onnx").write_text("half")
    assert not await control.reload()
    assert waited == [SETTLE_S]
    assert harness.reconciler.wanted("m") == before
    assert harness.reconciler.wanted("other") != {}  # it is there, so it is not gone
    assert "m/2 is left as it is, because it is being written (has changed just now)" in caplog.text
    assert "other is left as it is" in caplog.text

    harness.slept = waited.append
    (harness.root / "other/config.pbtxt").write_text('backend: "identity"')
    assert await control.reload()
    assert set(harness.reconciler.wanted("m")) == {1, 2}
    await asyncio.wait_for(harness.reconciler.settle(), 5)


@pytest.mark.parametrize("marker", ["fastserve-manifest.json", ".ready"])
async def test_a_reload_takes_what_says_that_it_is_finished(harness: Harness, marker: str) -> None:
    harness.put("m", 1)
    old_s = time.time() - 2 * SETTLE_S
    os.utime(harness.root / "m/config.pbtxt", (old_s, old_s))
    (harness.root / "m/1/weights").write_text("12345")
    files = {"fastserve-manifest.json": '{"files": {"weights": {"size": 6}}}', ".ready": ""}
    (harness.root / "m/1" / marker).write_text(files[marker])
    control = harness.controlling(explicit=False)
    await control.reload()
    assert set(harness.reconciler.wanted("m")) == ({1} if marker == ".ready" else set())
    await asyncio.wait_for(harness.reconciler.settle(), 5)


async def test_a_reload_keeps_the_configuration_of_the_last_load(harness: Harness) -> None:
    harness.put("m", 1)
    override = Override('{"backend": "identity", "max_batch_size": 7}')
    await harness.control.load("m", override)
    harness.put("m", 2)
    harness.put("never_loaded", 1)
    assert await harness.control.reload()
    await asyncio.wait_for(harness.reconciler.settle(), 5)
    specs = harness.reconciler.wanted("m")
    assert {v: spec.max_batch_rows for v, spec in specs.items()} == {2: 7}
    assert harness.reconciler.wanted("never_loaded") == {}
    await harness.control.load("m")
    assert {v: s.max_batch_rows for v, s in harness.reconciler.wanted("m").items()} == {1: -1, 2: -1}


async def test_an_override_that_fails_puts_everything_back(harness: Harness) -> None:
    harness.put("m", 1)
    await harness.control.load("m")
    before = dict(harness.reconciler.wanted("m"))
    harness.engine.failing["m"] = "no memory"
    with pytest.raises(InvalidArgument, match="version 1 is at UNAVAILABLE state: no memory;"):
        await harness.control.load("m", Override('{"backend": "identity", "max_batch_size": 7}'))
    assert harness.reconciler.wanted("m") == before
    assert await harness.states("m") == [(1, "READY", "serves on as it was; the new one failed: no memory")]


async def test_what_waits_until_it_is_complete_is_told(harness: Harness) -> None:
    harness.put("m", 1, 2)
    (harness.root / "m/2/weights.part").touch()
    await harness.control.load("m")
    waits = (2, "UNLOADED", "waits: it is not complete: there is 'weights.part'")
    assert await harness.states("m") == [(1, "READY", ""), waits]
    (harness.root / "m/2/weights.part").rename(harness.root / "m/2/weights")
    await harness.control.load("m")
    assert await harness.states("m") == [(1, "READY", ""), (2, "READY", "")]
    harness.control.set_waiting({("m", 2): "has changed just now", ("m", 3): "has changed just now"})
    serves_on = "serves on as it was; the new one has changed just now"
    waits = (3, "UNLOADED", "waits: it has changed just now")
    assert await harness.states("m") == [(1, "READY", ""), (2, "READY", serves_on), waits]
    await harness.control.unload("m")
    assert await harness.states("m") == [(1, "UNLOADED", "unloaded"), (2, "UNLOADED", "unloaded")]


async def test_a_manifest_that_cannot_be_read_is_an_error_of_its_version(harness: Harness) -> None:
    harness.put("m", 1)
    await harness.control.load("m")
    harness.put("m", 2)
    (harness.root / "m/2/fastserve-manifest.json").write_text("[]")
    with pytest.raises(
        InvalidArgument, match=r"version 2 is at UNAVAILABLE state: .*fastserve-manifest.json: has no object"
    ):
        await harness.control.load("m")
    one, two = await harness.states("m")
    assert one == (1, "READY", "")
    assert two[:2] == (2, "FAILED")
    assert "fastserve-manifest.json" in two[2]
    assert harness.reconciler.counts.failures[("m", "2", "configuration")] == 1
