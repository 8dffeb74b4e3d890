"""What serves under each version policy when versions come, go, and do not load: polled folders, ModelControl and the reconciler
over an engine that fails where the test says so."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastserve.errors import InvalidArgument
from fastserve.lifecycle import ModelControl, Reconciler, Repositories
from fastserve.lifecycle.poller import Poller

OLD_NS = 4_000_000_000_000_000_000


class Engine:
    """As _core.Engine has it."""

    def __init__(self) -> None:
        self.failing: set[int] = set()
        self.ready: set[tuple[str, int]] = set()

    def load(self, spec: Any, progress: Any = None) -> None:
        if spec.version in self.failing:
            raise InvalidArgument("not an ONNX file")
        self.ready.add((spec.model, spec.version))

    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None:
        self.ready.discard((model, version))

    def give_up_load(self, model: str, version: int) -> bool:
        return False

    def status(self) -> list[Any]:
        return [
            SimpleNamespace(model=m, version=v, state="READY", reason="", progress=1.0) for m, v in self.ready
        ]


class Harness:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.engine = Engine()
        self.reconciler = Reconciler(self.engine)  # type: ignore[arg-type]
        repositories = Repositories((root,))
        self.control = ModelControl(self.reconciler, repositories, explicit=False)
        self.now = 0.0
        self.poller = Poller(repositories, 15.0, clock=lambda: self.now, wall_ns=lambda: OLD_NS)

    def put(self, *versions: int, policy: str = "", text: str = "x") -> None:
        for version in versions:
            path = self.root / f"m/{version}/model.onnx"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if policy:
            (self.root / "m/config.pbtxt").write_text(f"version_policy {{ {policy} }}")

    def remove(self, *versions: int) -> None:
        for version in versions:
            shutil.rmtree(self.root / f"m/{version}")

    async def start(self) -> list[int]:
        await self.control.apply(self.poller.first().models)
        await self.reconciler.settle()
        return self.serving()

    async def polled(self) -> list[int]:
        """Two polls later."""
        for _ in range(2):
            self.now += 15
            await self.control.apply(*self.poller.poll())
            await self.reconciler.settle()
        return self.serving()

    def serving(self) -> list[int]:
        return sorted(version for _, version in self.engine.ready)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path)
    yield made
    await made.control.close()
    await made.reconciler.close()


async def test_latest(harness: Harness) -> None:
    harness.put(1, 2)
    assert await harness.start() == [2]
    harness.put(3)
    assert await harness.polled() == [3]
    harness.remove(3)
    assert await harness.polled() == [2]


async def test_latest_when_the_newest_does_not_load(harness: Harness) -> None:
    harness.put(1, 2)
    await harness.start()
    harness.engine.failing = {3}
    harness.put(3)
    assert await harness.polled() == [2]
    assert [s.reason for s in harness.reconciler.model_states() if s.version == 3] == ["not an ONNX file"]
    harness.engine.failing = set()
    harness.put(3, text="repaired")
    assert await harness.polled() == [3]


async def test_latest_when_the_newest_is_broken_on_disk(harness: Harness) -> None:
    harness.put(1)
    await harness.start()
    harness.put(2, text="")
    assert await harness.polled() == [1]


async def test_several_latest_when_the_newest_does_not_load(harness: Harness) -> None:
    harness.put(1, 2, 3, policy="latest { num_versions: 2 }")
    assert await harness.start() == [2, 3]
    harness.engine.failing = {4}
    harness.put(4)
    assert 3 in await harness.polled()
    harness.engine.failing = set()
    harness.put(4, text="repaired")
    assert await harness.polled() == [3, 4]


async def test_all(harness: Harness) -> None:
    harness.put(1, 3, policy="all { }")
    assert await harness.start() == [1, 3]
    harness.put(2)
    harness.remove(1)
    assert await harness.polled() == [2, 3]


async def test_specific(harness: Harness) -> None:
    harness.put(1, 2, 3, policy="specific { versions: [ 1, 3 ] }")
    assert await harness.start() == [1, 3]
    harness.put(4)
    assert await harness.polled() == [1, 3]
    harness.put(policy="specific { versions: [ 2 ] }")
    assert await harness.polled() == [2]


async def test_specific_when_the_version_is_not_there_yet(harness: Harness) -> None:
    harness.put(1)
    await harness.start()
    harness.put(policy="specific { versions: [ 5 ] }")
    assert await harness.polled() == [1]
    harness.put(5)
    assert await harness.polled() == [5]


async def test_a_model_that_lost_all_its_versions_serves_on(harness: Harness) -> None:
    harness.put(1)
    await harness.start()
    harness.remove(1)
    assert await harness.polled() == [1]
    shutil.rmtree(harness.root / "m")
    assert await harness.polled() == []


async def test_a_broken_configuration_changes_nothing(harness: Harness) -> None:
    harness.put(1)
    await harness.start()
    harness.put(policy="latest { num_version: 2 }")
    harness.put(2)
    assert await harness.polled() == [1]
    harness.put(policy="latest { num_versions: 2 }")
    assert await harness.polled() == [1, 2]
