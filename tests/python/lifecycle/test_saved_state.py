"""What clients changed, across restarts: written as a whole, read with care, one server at a time."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import FailedPrecondition, InvalidArgument
from fastserve.lifecycle.saved_state import SavedModel, SavedState, restore_labels


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = SavedState.open(path)
    assert (state.models, state.labels) == ({}, {})
    labels: dict[str, Any] = {}
    state.follow(lambda: labels)
    await state.loaded("digits", None, from_files=False)
    await state.loaded("cats", '{"max_batch_size": 4}', from_files=False)
    await state.loaded("dogs", "{}", from_files=True)
    await state.unloaded("digits")
    labels["cats"] = {"stable": {1: 1}, "canary": {1: 95, 2: 5}}
    state.labels_changed()
    await state.close()
    again = SavedState.open(path)
    assert again.models == {
        "cats": SavedModel(True, '{"max_batch_size": 4}'),
        "digits": SavedModel(False),
        "dogs": SavedModel(True, "{}", from_files=True),
    }
    assert again.labels == labels
    await again.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["state.json", "state.json.lock"]


async def test_one_server_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    first = SavedState.open(path)
    with pytest.raises(FailedPrecondition, match=rf"in use by another server \(pid {os.getpid()}\)"):
        SavedState.open(path)
    await first.close()
    await SavedState.open(path).close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no JSON"),
        (b"{", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[]", "is no state file of fastserve"),
        (b'{"fastserve_state": 2}', "fastserve_state: got 2, want 1"),
        (b'{"fastserve_state": 1}', "models: want an object"),
        (b'{"fastserve_state": 1, "models": {"../x": {"loaded": true}}}', "is no model name"),
        (b'{"fastserve_state": 1, "models": {"m": {"loaded": 1}}}', "want loaded"),
        (b'{"fastserve_state": 1, "models": {"m": {"loaded": true, "config": {}}}}', "config (a text)"),
        (b'{"fastserve_state": 1, "models": {}, "labels": {"m": 3}}', "labels['m']: want an object"),
        (b'{"fastserve_state": 1, "models": {}, "labels": {"m": {"x": {"one": 1}}}}', "got version 'one'"),
        (b'{"fastserve_state": 1, "models": {}, "labels": {"m": {"x": {"1": "1"}}}}', "want a number"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    for _ in range(2):  # the lock is given back
        with pytest.raises(FailedPrecondition) as caught:
            SavedState.open(path)
        assert words in str(caught.value)
        assert str(caught.value).endswith("put it right, or move it away to start without what it keeps")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="choose another with --state-file"):
        SavedState.open(tmp_path / "no" / "state.json")


async def test_a_state_that_cannot_be_written_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    state = SavedState.open(folder / "state.json")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    await state.loaded("m", None, from_files=False)
    assert state.failures == 1
    assert "a restart will not know of this change" in caplog.text
    folder.mkdir()
    await state.close()  # written after all
    assert json.loads((folder / "state.json").read_text())["models"] == {"m": {"loaded": True}}


async def test_the_last_of_many_changes_is_there(tmp_path: Path) -> None:
    state = SavedState.open(tmp_path / "s")
    await asyncio.gather(*(state.loaded(f"m{i % 7}", str(i), from_files=False) for i in range(50)))
    await state.close()
    again = SavedState.open(tmp_path / "s")
    assert {name: model.config for name, model in again.models.items()} == {
        f"m{i % 7}": str(i) for i in range(50)
    }
    await again.close()


def test_labels_that_cannot_be_any_more_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    restored: dict[str, Any] = {}

    def restore(labels: Any) -> None:
        if "bad" in labels:
            raise InvalidArgument("no such thing")
        restored.update(labels)

    restore_labels(restore, {"bad": {"x": {1: 1}}, "good": {"y": {2: 1}}})
    assert restored == {"good": {"y": {2: 1}}}
    assert "labels of bad, kept from before the restart: no such thing" in caplog.text
