"""Files of requests: private, bounded, gone when nobody needs them, swept when their server died."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import ResourceExhausted
from fastserve.lifecycle.request_files import RequestFiles


@pytest.fixture
def files(tmp_path: Path) -> Iterator[RequestFiles]:
    made = RequestFiles(100, (tmp_path,))
    yield made
    made.close()


def below(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_nothing_is_made_before_it_is_needed(tmp_path: Path, files: RequestFiles) -> None:
    files.keep("m", ())
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_load_s_files_are_a_repository(tmp_path: Path, files: RequestFiles) -> None:
    root = files.store("m", {"1/model.onnx": b"abc", "1/a/b": b"", "labels.txt": b"cat"})
    assert (root / "m" / "1" / "model.onnx").read_bytes() == b"abc"
    assert below(root) == ["b", "labels.txt", "model.onnx"]
    assert files.held_bytes == 6
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in root.rglob("*") if p.is_file()} == {0o600}


def test_what_is_used_stays(files: RequestFiles) -> None:
    first = files.store("m", {"1/x": b"1"})
    second = files.store("m", {"1/x": b"2"})
    other = files.store("other", {"1/x": b"3"})
    files.keep("m", {str(first / "m" / "1" / "x"), "", "/elsewhere"})
    assert (first.exists(), second.exists(), other.exists()) == (True, False, True)
    files.keep("m", {f"{first}0/m"})  # another folder whose name begins alike
    assert not first.exists()
    assert files.held_bytes == 1
    assert files.roots("m") == frozenset()


@pytest.mark.parametrize(("size", "fits"), [(59, True), (60, True), (61, False)])
def test_so_many_bytes_of_all_models(files: RequestFiles, size: int, fits: bool) -> None:
    files.store("first", {"1/x": bytes(40)})
    if fits:
        files.store("m", {"1/x": bytes(size)})
        return
    with pytest.raises(
        ResourceExhausted, match=r"have 61 bytes and those of other loads 40: want at most 100"
    ):
        files.store("m", {"1/x": bytes(size)})
    files.keep("first", ())
    files.store("m", {"1/x": bytes(size)})


def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, files: RequestFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def full(path: Path, *args: Any, **kwargs: Any) -> int:
        if Path(path).name == "second":
            raise OSError(28, "No space left on device")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(ResourceExhausted, match="cannot be kept: No space left on device"):
        files.store("m", {"1/first": b"x", "1/second": b"y"})
    assert (below(tmp_path), files.held_bytes) == ([], 0)


def test_where_there_is_room(tmp_path: Path) -> None:
    """The first of the parents is not there."""
    (tmp_path / "second").mkdir()
    files = RequestFiles(100, (tmp_path / "first", tmp_path / "second"))
    assert (tmp_path / "second") in files.store("m", {"1/x": b""}).parents
    files.close()


def test_what_a_dead_process_left_is_swept_and_a_live_one_s_is_not(
    tmp_path: Path, files: RequestFiles
) -> None:
    code = (
        "import sys, os, pathlib; from fastserve.lifecycle.request_files import RequestFiles\n"
        "RequestFiles(100, (pathlib.Path(sys.argv[1]),)).store('dead', {'1/x': b'1'}); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    mine = files.store("m", {"1/x": b"2"})
    old = time.time() - 120
    unfinished, young = (tmp_path / f"fastserve-files-{os.getuid()}-{name}" for name in ("none", "young"))
    for folder in (unfinished, young):
        folder.mkdir()
    os.utime(unfinished, (old, old))
    (tmp_path / f"fastserve-files-{os.getuid() + 1}-x").mkdir()  # by its name another user's
    for lock in tmp_path.glob("*/.lock"):
        os.utime(lock, (old, old))
    assert RequestFiles(100, (tmp_path,)).sweep() == 2
    assert below(tmp_path) == ["x"]
    assert mine.exists()
    assert young.exists()
    assert not unfinished.exists()
