"""Polls of folders on disk, in virtual time: what is applied, what is gone, what is left alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pytest

from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle import Repositories
from fastserve.lifecycle.listed.model_list import ModelList
from fastserve.lifecycle.model_folder import FoundModel
from fastserve.lifecycle.poller import Poller

POLL_S = 15.0
OLD_NS = 4_000_000_000_000_000_000  # after everything that a test writes: nothing is young at start


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Harness:
    """`poll()`: one more poll, 15 s later -> {model: {version: fingerprint}} of what is applied, and what is gone."""

    def __init__(self, *roots: Path, lists: tuple[ModelList, ...] = (), folders: bool = True) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.wall_ns = OLD_NS
        self.repositories = Repositories(roots, lists=lists)
        self.poller = Poller(
            self.repositories,
            POLL_S,
            folders=folders,
            clock=lambda: self.now,
            wall_ns=lambda: self.wall_ns,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def first(self) -> dict[str, list[int]]:
        return {model.name: list(model.versions) for model in self.poller.first().models}

    def poll(self) -> tuple[dict[str, FoundModel], set[str]]:
        self.now += POLL_S
        models, gone = self.poller.poll()
        return {model.name: model for model in models}, set(gone)

    def settled(self) -> dict[str, list[int]]:
        """What two polls apply."""
        first, _ = self.poll()
        assert first == {}
        return {name: list(model.versions) for name, model in self.poll()[0].items()}

    def nothing(self) -> bool:
        return self.poll() == ({}, set()) and self.poll() == ({}, set())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "repo/m/1/model.onnx")
    put(tmp_path / "repo/n/1/model.onnx")
    return tmp_path / "repo"


@pytest.fixture
def polls(root: Path) -> Harness:
    harness = Harness(root)
    assert harness.first() == {"m": [1], "n": [1]}
    return harness


def test_nothing_changes(polls: Harness) -> None:
    assert polls.slept == []
    assert polls.nothing()


def test_a_new_version_and_a_new_model(polls: Harness, root: Path) -> None:
    put(root / "m/2/model.onnx")
    put(root / "new/1/model.onnx")
    assert polls.settled() == {"m": [2], "new": [1]}
    assert polls.nothing()


def test_content_that_is_replaced_in_place(polls: Harness, root: Path) -> None:
    before = polls.repositories.scan().wanted["m"][1]
    put(root / "m/1/model.onnx", "longer")
    polls.poll()
    found, _ = polls.poll()
    assert list(found) == ["m"]
    assert found["m"].versions[1] != before


def test_what_was_only_touched_is_the_same_as_before(polls: Harness, root: Path) -> None:
    before = polls.repositories.scan().wanted["m"][1]
    os.utime(root / "m/1/model.onnx", ns=(1, 1))
    polls.poll()
    found, _ = polls.poll()
    assert found["m"].versions[1] == before  # the reconciler has nothing to do


@pytest.mark.parametrize("name", ["config.pbtxt", "model.yaml", "labels.txt", "warmup/data"])
def test_files_beside_the_versions(name: str, polls: Harness, root: Path) -> None:
    put(root / "m" / name, "")
    assert polls.settled() == {"m": [1]}


def test_half_a_version_is_not_seen(polls: Harness, root: Path) -> None:
    put(root / "m/2/model.onnx", "a")
    for text in ("ab", "abc", "abcd"):
        assert polls.poll() == ({}, set())
        put(root / "m/2/model.onnx", text)
    assert polls.settled() == {"m": [2]}


def test_half_a_version_in_place_is_served_as_it_was(polls: Harness, root: Path) -> None:
    before = polls.repositories.scan().wanted["m"][1]
    put(root / "m/config.pbtxt", "version_policy { all { } }")
    put(root / "m/2/model.onnx")
    put(root / "m/1/model.onnx", "half")
    polls.poll()
    put(root / "m/1/model.onnx", "half of it")
    found, _ = polls.poll()
    assert found["m"].versions[1] == before
    assert 2 in found["m"].versions


def test_a_manifest_makes_it_quick(polls: Harness, root: Path) -> None:
    put(root / "m/2/model.onnx", "ab")
    put(root / "m/2/fastserve-manifest.json", json.dumps({"files": {"model.onnx": {"size": 3}}}))
    assert polls.nothing()
    assert polls.nothing()
    put(root / "m/2/model.onnx", "abc")
    assert list(polls.poll()[0]["m"].versions) == [2]  # at once


@pytest.mark.parametrize("name", [".new", "_tmp_x", "x.tmp", "x.part"])
def test_folders_that_are_being_made(name: str, polls: Harness, root: Path) -> None:
    put(root / name / "1/model.onnx")
    assert polls.nothing()
    (root / name).rename(root / "x")
    assert polls.settled() == {"x": [1]}


def test_a_version_is_removed(polls: Harness, root: Path) -> None:
    put(root / "m/2/model.onnx")
    polls.settled()
    shutil.rmtree(root / "m/2")
    assert polls.settled() == {"m": [1]}


def test_a_model_is_removed(polls: Harness, root: Path) -> None:
    shutil.rmtree(root / "m")
    assert polls.poll() == ({}, set())
    assert polls.poll() == ({}, {"m"})


def test_the_last_version_is_removed(polls: Harness, root: Path) -> None:
    shutil.rmtree(root / "m/1")
    polls.poll()
    found, gone = polls.poll()
    assert not gone
    assert not found["m"].versions  # what serves goes on, ModelControl sees to that
    assert "has no version folder" in str(found["m"].problems[0])


def test_the_repository_vanishes_and_comes_back(
    polls: Harness, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root.rename(root.with_name("away"))
    assert polls.nothing()
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
        f"model repository '{root}' does not exist; create it or correct --model-repository; its models serve on as they are"
    ]
    assert polls.poller.figures.lost == ((str(root), True),)
    root.with_name("away").rename(root)
    assert polls.nothing()
    assert polls.poller.figures.lost == ((str(root), False),)


def test_an_unmounted_repository_is_another_folder_with_nothing_in_it(polls: Harness, root: Path) -> None:
    root.rename(root.with_name("away"))
    root.mkdir()
    assert polls.nothing()
    assert polls.poller.figures.lost == ((str(root), True),)


def test_a_repository_that_was_emptied_is_empty(polls: Harness, root: Path) -> None:
    shutil.rmtree(root / "m")
    shutil.rmtree(root / "n")
    polls.poll()
    assert polls.poll() == ({}, {"m", "n"})


def test_another_repository_is_not_touched_by_one_that_vanished(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    put(other / "k/1/model.onnx")
    polls = Harness(root, other)
    polls.first()
    shutil.rmtree(root)
    put(other / "k/2/model.onnx")
    assert polls.settled() == {"k": [2]}


def test_a_corrupt_new_version_is_a_problem_and_no_more(polls: Harness, root: Path) -> None:
    put(root / "m/2/model.onnx", "")
    polls.poll()
    found, gone = polls.poll()
    assert not gone
    assert [str(p) for p in found["m"].problems] == ["m/2: 'model.onnx' is empty"]
    assert polls.nothing()  # and is not read again and again


def test_at_start_young_files_are_looked_at_twice(root: Path) -> None:
    polls = Harness(root)
    polls.wall_ns = 0  # everything is young
    assert polls.first() == {"m": [1], "n": [1]}
    assert polls.slept == [2.0]


def test_at_start_a_version_that_grows_is_left_for_later(root: Path) -> None:
    polls = Harness(root)
    young = put(root / "m/2/model.onnx", "a")
    polls.wall_ns = young.stat().st_ctime_ns - 1

    def write_more(seconds: float) -> None:
        polls.now += seconds
        put(young, "abc")

    polls.poller._sleep = write_more
    assert polls.first() == {"m": [1], "n": [1]}
    assert list(polls.poll()[0]["m"].versions) == [2]


def test_a_repository_that_is_not_there_at_start(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        Harness(tmp_path / "none").first()


def test_nothing_is_written_into_a_repository(polls: Harness, root: Path) -> None:
    def state() -> list[tuple[str, int]]:
        return [(str(p), p.stat().st_mtime_ns) for p in sorted(root.rglob("*"))]

    before = state()
    polls.poll()
    assert state() == before


# --- lists


def write_list(path: Path, *models: tuple[str, Path]) -> Path:
    return put(path, json.dumps({"models": [{"name": name, "path": str(base)} for name, base in models]}))


def test_a_list_that_changes(root: Path, tmp_path: Path) -> None:
    file = write_list(tmp_path / "models.yaml", ("a", root / "m"))
    polls = Harness(lists=(ModelList("models", file),))
    assert polls.first() == {"a": [1]}
    write_list(file, ("b", root / "n"))
    assert polls.poll() == ({}, set())  # maybe half of it
    found, gone = polls.poll()
    assert gone == {"a"}
    found |= polls.poll()[0]
    assert list(found) == ["b"]


def test_a_list_that_breaks_keeps_what_it_said(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_list(tmp_path / "models.yaml", ("a", root / "m"))
    polls = Harness(lists=(ModelList("models", file),))
    polls.first()
    file.write_text("models:\n- {name: a, paht: x}")
    assert polls.nothing()
    assert polls.nothing()
    assert [r.message for r in caplog.records if r.levelname == "ERROR"] == [
        f"{file}:2: models[0].path is missing; {file}:2: unknown key 'models[0].paht' (did you mean path?); "
        "going on with what it said before"
    ]
    file.unlink()
    assert polls.nothing()
    write_list(file, ("a", root / "m"))
    assert polls.nothing()


def test_a_broken_list_at_start(tmp_path: Path) -> None:
    file = put(tmp_path / "models.yaml", "modles: []")
    with pytest.raises(
        InvalidArgument, match=r"models.yaml:1: unknown key 'modles' \(did you mean models\?\)"
    ):
        Harness(lists=(ModelList("models", file),)).first()


def test_only_lists_are_read_again(root: Path, tmp_path: Path) -> None:
    file = write_list(tmp_path / "models.yaml", ("a", root / "m"))
    polls = Harness(root / "none", lists=(ModelList("models", file),), folders=False)
    (root / "none").mkdir()
    assert polls.first() == {"a": [1]}
    put(root / "m/2/model.onnx")
    assert polls.nothing()
    write_list(file, ("a", root / "m"), ("b", root / "n"))
    polls.poll()
    assert list(polls.poll()[0]) == ["b"]


# --- on the event loop


class Control:
    def __init__(self) -> None:
        self.applied: list[tuple[list[str], set[str]]] = []
        self.called = asyncio.Event()
        self.waiting: dict[tuple[str, int], str] = {}

    def set_waiting(self, waiting: Mapping[tuple[str, int], str]) -> None:
        self.waiting = dict(waiting)

    async def apply(self, models: Iterable[FoundModel], gone: Collection[str] = ()) -> None:
        self.applied.append(([model.name for model in models], set(gone)))
        self.called.set()
        if len(self.applied) == 1:
            raise RuntimeError("the first time goes wrong")


async def test_it_polls_until_it_is_closed(root: Path) -> None:
    poller = Poller(Repositories((root,)), 0.02)
    poller.settle_s = 0.01
    poller.first()
    control = Control()
    poller.start(control)
    put(root / "m/2/model.onnx")
    async with asyncio.timeout(10):
        await control.called.wait()
        control.called.clear()
        put(root / "n/2/model.onnx")
        await control.called.wait()  # in spite of the error
    await poller.close()
    assert control.applied == [(["m"], set()), (["n"], set())]
    polls = poller.figures.polls
    await asyncio.sleep(0.1)
    assert poller.figures.polls == polls
