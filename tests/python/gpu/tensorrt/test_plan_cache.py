"""Plans that were built before: what comes back is what was stored, or nothing does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastserve import errors
from fastserve.gpu.tensorrt.plan_cache import HEAD_BYTES, PlanCache, open_cache

KEY = "a" * 64
PLAN = b"ftrt" + bytes(1000)


@pytest.fixture
def store(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans", 1 << 20)


def test_what_is_stored_is_found(store: PlanCache) -> None:
    assert store.find(KEY) is None
    store.store(KEY, PLAN)
    found = store.find(KEY)
    assert found is not None
    assert bytes(found) == PLAN
    assert [path.name for path in store.folder.iterdir()] == [f"{KEY}.plan"], "nothing is left beside it"
    assert (store.folder / f"{KEY}.plan").stat().st_mode & 0o077 == 0, "others neither read nor write it"


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        (lambda data: data[: HEAD_BYTES - 1], "is cut off: got 47 bytes"),
        (lambda data: data[:-1], "is cut off"),
        (lambda data: data + b"x", "has more at its end than belongs to it"),
        (lambda data: b"NOPLAN1\n" + data[8:], "is no file of this cache"),
        (lambda data: data[:-1] + b"\1", "is not what was stored (SHA-256)"),
    ],
    ids=["head", "content", "longer", "magic", "hash"],
)
def test_what_is_broken_is_removed_and_said(
    store: PlanCache, spoilt: object, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.store(KEY, PLAN)
    path = store.folder / f"{KEY}.plan"
    path.write_bytes(spoilt(path.read_bytes()))  # type: ignore[operator]
    assert store.find(KEY) is None
    assert why in caplog.text
    assert not path.exists()


def test_those_that_were_not_used_for_longest_go(tmp_path: Path) -> None:
    size = len(PLAN) + HEAD_BYTES
    store = PlanCache(tmp_path / "plans", 2 * size)
    for age, key in ((30, "old"), (20, "older"), (10, "new")):
        store.store(key, PLAN)
        when = (store.folder / f"{key}.plan").stat().st_mtime - age
        os.utime(store.folder / f"{key}.plan", (when, when))
    assert store.find("old") is None, "two fit, and three were stored"
    store.find("older")  # used: now
    store.store("last", PLAN)
    assert {path.stem for path in store.folder.glob("*.plan")} == {"older", "last"}


def test_one_that_is_larger_than_the_limit_stays_until_the_next(tmp_path: Path) -> None:
    store = PlanCache(tmp_path / "plans", 10)
    store.store(KEY, PLAN)
    assert store.find(KEY) is not None
    store.store("b", PLAN)
    assert store.find(KEY) is None


def test_what_a_builder_left_that_died_goes_after_a_day(store: PlanCache) -> None:
    for name, age_s in (("today.part", 3_600), ("long_ago.part", 90_000)):
        path = store.folder / name
        path.touch()
        when = path.stat().st_mtime - age_s
        os.utime(path, (when, when))
    store.collect()
    assert [path.name for path in store.folder.iterdir()] == ["today.part"]


def test_a_folder_where_others_may_write_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plans"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(errors.FailedPrecondition, match="plans are programs"):
        PlanCache(folder, 1)
    with pytest.raises(errors.FailedPrecondition, match="plans are programs"):
        open_cache(str(folder), 1)
    folder.chmod(0o755)
    PlanCache(folder, 1)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.FailedPrecondition, match=r"plan_cache: .*Not a directory"):
        PlanCache(tmp_path / "file" / "plans", 1)


def test_without_a_folder_of_the_users_plans_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = open_cache("auto", 1)
    assert made is not None
    assert made.folder == tmp_path / "fastserve" / "plans"
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_cache("auto", 1) is None
    assert "plans are built at each start" in caplog.text
    assert open_cache("none", 1) is None


OTHER = """
import sys
from pathlib import Path
from fastserve.gpu.tensorrt.plan_cache import PlanCache
store = PlanCache(Path(sys.argv[1]), 1 << 20)
with store.locked("key", lambda: print("waits", flush=True)):
    print("has", store.find("key") is not None, flush=True)
"""


def test_two_processes_build_one_after_the_other(store: PlanCache) -> None:
    with store.locked("key", lambda: pytest.fail("nobody else has it")):
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER, store.folder], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout is not None
        assert other.stdout.readline() == "waits\n"
        store.store("key", PLAN)
    assert other.stdout.readline() == "has True\n"
    assert other.wait(30) == 0
    other.stdout.close()
    assert not list(store.folder.glob("*.lock"))


def test_a_forked_process_that_lives_on_holds_no_lock(store: PlanCache) -> None:
    reader, writer = os.pipe()
    with store.locked("key", lambda: None):
        child = os.fork()
        if child == 0:  # holds the lock's descriptor until the test is over
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    waited: list[str] = []
    with store.locked("key", lambda: waited.append("waits")):
        pass
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)
    assert waited == []
