"""When a version counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastserve.lifecycle import fingerprint as module
from fastserve.lifecycle.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "1" / "variables").mkdir(parents=True)
    (tmp_path / "1" / "model.xml").write_text("xml")
    (tmp_path / "1" / "variables" / "data").write_text("data")
    return tmp_path / "1"


def test_the_same_twice(folder: Path) -> None:
    assert fingerprint(folder) == fingerprint(folder) != ""


def test_an_empty_folder(tmp_path: Path) -> None:
    assert fingerprint(tmp_path) == ""


def test_size_time_name_and_depth_count(folder: Path) -> None:
    seen = {fingerprint(folder)}
    (folder / "variables" / "data").write_text("more data")
    seen.add(fingerprint(folder))
    os.utime(folder / "model.xml", ns=(5, 5))
    seen.add(fingerprint(folder))
    (folder / "model.xml").rename(folder / "other.xml")
    seen.add(fingerprint(folder))
    (folder / "new").write_text("")
    seen.add(fingerprint(folder))
    assert len(seen) == 5


def test_a_copy_that_keeps_size_and_time_is_seen(folder: Path) -> None:
    path = folder / "model.xml"
    status = path.stat()
    before = fingerprint(folder)
    path.with_name(".new").write_text("abc")
    os.utime(path.with_name(".new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    path.with_name(".new").replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert fingerprint(folder) != before


def test_links_count_as_what_they_point_at(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("a")
    (folder / "link").symlink_to(target)
    before = fingerprint(folder)
    target.write_text("longer")
    assert fingerprint(folder) != before
    target.unlink()
    assert fingerprint(folder)  # a broken link is no error


@pytest.mark.parametrize(("limit", "seen"), [(2, False), (3, True), (4, True)])
def test_so_many_files_are_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int, seen: bool
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", limit)
    (folder / "variables" / "last").write_text("a")
    before = fingerprint(folder)
    (folder / "variables" / "last").write_text("longer")
    assert (fingerprint(folder) != before) is seen
