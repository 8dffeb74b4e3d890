"""Checksums before a load: what is let through, and what is refused with which words."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fastserve import errors
from fastserve.lifecycle import backend_choice, integrity
from fastserve.lifecycle.manifest import MANIFEST_FILE, SUMS_FILE, Entry, write_manifest
from fastserve.lifecycle.version_spec import VersionSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    version = tmp_path / "digits" / "3"
    (version / "data").mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"model")
    (version / "data" / "names.txt").write_bytes(b"names")
    return version


def spec_of(folder: Path, *, require: bool = False) -> VersionSpec:
    return VersionSpec("digits", 3, "openvino", str(folder / "model.onnx"), require_manifest=require)


def write(folder: Path, **changed: Entry) -> None:
    entries = integrity.manifest_of(folder) | changed
    (folder / MANIFEST_FILE).write_text(write_manifest(entries))


def refused(spec: VersionSpec) -> str:
    with pytest.raises(errors.InvalidArgument) as raised:
        integrity.verify(spec)
    return str(raised.value)


def test_what_fits_is_let_through(folder: Path) -> None:
    integrity.verify(spec_of(folder))  # nothing says how it has to be
    write(folder)
    reports: list[tuple[float, str]] = []
    integrity.verify(spec_of(folder, require=True), lambda fraction, what: reports.append((fraction, what)))
    assert [what for _, what in reports] == ["verifying data/names.txt", "verifying model.onnx"]


def test_what_does_not_fit_names_file_got_and_want(folder: Path) -> None:
    write(folder)
    (folder / "model.onnx").write_bytes(b"modem")
    want, got = (hashlib.sha256(data).hexdigest()[:12] for data in (b"model", b"modem"))
    assert refused(spec_of(folder)) == f"{MANIFEST_FILE}: 'model.onnx' has sha256 {got}, want {want}"
    (folder / "model.onnx").write_bytes(b"modem+")
    (folder / "data" / "names.txt").unlink()
    assert refused(spec_of(folder)) == (
        f"{MANIFEST_FILE}: 'data/names.txt' is missing; 'model.onnx' has 6 bytes, want 5"
    )


def test_sha256sums_of_coreutils(folder: Path) -> None:
    (folder / SUMS_FILE).write_text(f"{hashlib.sha256(b'model').hexdigest()}  ./model.onnx\n")
    integrity.verify(spec_of(folder))
    (folder / "model.onnx").write_bytes(b"modem")
    assert refused(spec_of(folder)).startswith("SHA256SUMS: 'model.onnx' has sha256 ")


def test_both_have_to_be_right(folder: Path) -> None:
    write(folder)
    (folder / SUMS_FILE).write_text(f"{'0' * 64}  model.onnx\n")
    assert refused(spec_of(folder)).startswith("SHA256SUMS: 'model.onnx' has sha256 ")


def test_require_manifest(folder: Path) -> None:
    assert "which --require-manifest wants" in refused(spec_of(folder, require=True))
    write(folder)
    (folder / "stranger.py").write_bytes(b"")
    integrity.verify(spec_of(folder))
    assert f"{MANIFEST_FILE} does not name 'stranger.py'" in refused(spec_of(folder, require=True))


def test_a_backend_without_files_needs_none() -> None:
    integrity.verify(VersionSpec("echo", 1, "identity", require_manifest=True))


def test_a_model_that_is_a_folder(folder: Path) -> None:
    (folder / "model.savedmodel").mkdir()
    assert integrity.folder_of(replace(spec_of(folder), path=str(folder / "model.savedmodel"))) == folder
    assert integrity.folder_of(replace(spec_of(folder), path=str(folder))) == folder
    remote = folder.rename(folder.parent / "3-0a1b2c")
    assert integrity.folder_of(replace(spec_of(folder), path=str(remote))) == remote


def test_a_file_is_read_once_as_long_as_it_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.onnx"
    read: list[int] = []
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 100)
    first = integrity.sha256_of(path, read.append)
    assert integrity.sha256_of(path, read.append) == first
    assert read == [5]
    path.write_bytes(b"other")
    assert integrity.sha256_of(path, read.append) != first
    before = path.stat()
    path.write_bytes(b"third")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a copy that keeps its time
    assert integrity.sha256_of(path, read.append) == hashlib.sha256(b"third").hexdigest()


def test_a_young_file_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "model.onnx"
    monkeypatch.setattr(time, "time", lambda: path.stat().st_ctime + 0.5)
    read: list[int] = []
    for _ in range(2):
        integrity.sha256_of(path, read.append)
    assert read == [5, 5]


def test_the_digests_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "MAX_KEPT_DIGESTS", 3)
    kept = integrity._Digests()
    for number in range(4):
        kept.keep((number,), str(number))
        kept.get((0,))
    assert [kept.get((number,)) for number in range(4)] == ["0", None, "2", "3"]


def test_a_load_looks_first(folder: Path) -> None:
    class Core:
        def load(self, spec: object, progress: object = None) -> None:
            raise AssertionError("loaded all the same")

    write(folder, **{"model.onnx": Entry(5, "0" * 64)})
    with pytest.raises(
        errors.InvalidArgument, match=r"'model.onnx' has sha256 [0-9a-f]{12}, want 000000000000"
    ):
        backend_choice.load(Core(), spec_of(folder))
