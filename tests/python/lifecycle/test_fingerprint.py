"""When a version counts as changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastserve.lifecycle import version_files
from fastserve.lifecycle.fingerprint import Fingerprints, fingerprint


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
    monkeypatch.setattr(version_files, "MAX_FILES", limit)
    (folder / "variables" / "last").write_text("a")
    before = fingerprint(folder)
    (folder / "variables" / "last").write_text("longer")
    assert (fingerprint(folder) != before) is seen


def changed(fingerprints: Fingerprints, folder: Path, seen: str) -> bool:
    return fingerprints.of(folder) != seen


def test_what_differs_in_times_alone_has_not_changed(folder: Path) -> None:
    fingerprints = Fingerprints()
    seen = fingerprints.of(folder)
    os.utime(folder / "model.xml", ns=(5, 5))
    assert not changed(fingerprints, folder, seen)
    (folder / "model.xml").write_text("xml")  # the same once more
    assert not changed(fingerprints, folder, seen)
    (folder / "model.xml").write_text("XML")
    assert changed(fingerprints, folder, seen)


def test_content_is_read_only_where_times_have_changed(folder: Path) -> None:
    fingerprints = Fingerprints()
    fingerprints.of(folder)
    assert fingerprints.read_bytes == 7
    fingerprints.of(folder)
    assert fingerprints.read_bytes == 7
    os.utime(folder / "model.xml", ns=(5, 5))
    fingerprints.of(folder)
    assert fingerprints.read_bytes == 14


@pytest.mark.parametrize(("eager_bytes", "known"), [(6, False), (7, True), (8, True)])
def test_large_versions_are_read_when_there_is_time(eager_bytes: int, known: bool, folder: Path) -> None:
    fingerprints = Fingerprints(eager_bytes=eager_bytes)
    seen = fingerprints.of(folder)
    assert (fingerprints.read_bytes > 0) is known
    assert not fingerprints.learn(1)
    assert fingerprints.read_bytes == 7
    os.utime(folder / "model.xml", ns=(5, 5))
    assert not changed(fingerprints, folder, seen)


def test_large_versions_that_nobody_had_time_for(folder: Path) -> None:
    fingerprints = Fingerprints(eager_bytes=6)
    seen = fingerprints.of(folder)
    os.utime(folder / "model.xml", ns=(5, 5))
    assert changed(fingerprints, folder, seen)


@pytest.mark.parametrize(("max_bytes", "times_count"), [(6, True), (7, False), (8, False)])
def test_of_the_largest_times_decide(max_bytes: int, times_count: bool, folder: Path) -> None:
    fingerprints = Fingerprints(max_bytes=max_bytes)
    seen = fingerprints.of(folder)
    fingerprints.learn(1 << 30)
    os.utime(folder / "model.xml", ns=(5, 5))
    assert changed(fingerprints, folder, seen) is times_count


def test_so_much_is_read_at_a_time(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "2"
    other.mkdir()
    (other / "model.xml").write_text("two")
    fingerprints = Fingerprints(eager_bytes=0)
    fingerprints.of(folder)
    fingerprints.of(other)
    assert fingerprints.learn(7)  # there is more
    assert not fingerprints.learn(7)
    assert fingerprints.read_bytes == 10
