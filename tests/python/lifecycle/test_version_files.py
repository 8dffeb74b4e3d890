"""Whether a version folder is finished, and what counts as its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastserve.lifecycle import manifest
from fastserve.lifecycle.version_files import content_of, finished, list_files, list_model


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def said(folder: Path) -> tuple[str, str]:
    return finished(folder, list_files(folder))


def write_manifest(folder: Path, **files: object) -> None:
    put(
        folder / "fastserve-manifest.json",
        json.dumps({"files": {k.replace("__", "."): v for k, v in files.items()}}),
    )


def test_nothing_is_said(tmp_path: Path) -> None:
    put(tmp_path / "model.onnx")
    assert said(tmp_path) == ("does not say", "")


def test_the_marker(tmp_path: Path) -> None:
    put(tmp_path / "model.onnx")
    put(tmp_path / ".ready", "")
    assert said(tmp_path) == ("says so", "")


@pytest.mark.parametrize("name", [".incomplete", "model.onnx.part", "deep/x.tmp", "x.partial"])
def test_files_that_say_that_it_is_not(name: str, tmp_path: Path) -> None:
    put(tmp_path / "model.onnx")
    put(tmp_path / ".ready", "")
    put(tmp_path / name)
    assert said(tmp_path) == ("no", f"there is '{name}'")


def test_a_manifest_is_a_list_of_what_has_to_be_there(tmp_path: Path) -> None:
    write_manifest(tmp_path, model__onnx={"size": 3}, data={"size": 2})
    assert said(tmp_path) == ("no", "'model.onnx' of fastserve-manifest.json is missing")
    put(tmp_path / "model.onnx", "ab")
    assert said(tmp_path) == ("no", "'model.onnx' has 2 bytes, fastserve-manifest.json says 3")
    put(tmp_path / "model.onnx", "abc")
    put(tmp_path / "data", "ab")
    assert said(tmp_path) == ("says so", "")
    put(tmp_path / "data", "abc")
    assert said(tmp_path)[0] == "no"


def test_a_manifest_without_sizes_says_only_what_is_missing(tmp_path: Path) -> None:
    write_manifest(tmp_path, model__onnx={"sha256": "0" * 64})
    assert said(tmp_path)[0] == "no"
    put(tmp_path / "model.onnx")
    assert said(tmp_path) == ("does not say", "")


def test_half_a_manifest(tmp_path: Path) -> None:
    put(tmp_path / "model.onnx")
    put(tmp_path / "fastserve-manifest.json", '{"files": {"model.on')
    assert said(tmp_path)[0] == "broken"
    assert "is not JSON" in said(tmp_path)[1]
    put(tmp_path / "fastserve-manifest.json", '{"files": ["model.onnx"]}')
    assert said(tmp_path)[0] == "broken"
    put(tmp_path / "weights.part")
    assert said(tmp_path)[0] == "no", "it says that it is being written"


@pytest.mark.parametrize(("more", "read"), [(-1, True), (0, True), (1, False)])
def test_so_much_of_a_manifest_is_read(
    more: int, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "m")
    write_manifest(tmp_path, m={"size": 1})
    size = (tmp_path / "fastserve-manifest.json").stat().st_size
    monkeypatch.setattr("fastserve.lifecycle.version_files.MAX_MANIFEST_BYTES", size - more)
    assert (said(tmp_path)[0] == "says so") is read
    assert manifest.MAX_MANIFEST_BYTES == 16 << 20


def test_files_about_the_files_are_no_content(tmp_path: Path) -> None:
    put(tmp_path / "model.py")
    put(tmp_path / ".ready", "")
    put(tmp_path / "__pycache__/model.cpython-311.pyc")
    write_manifest(tmp_path, model__py={"size": 1})
    assert [file.name for file in content_of(list_files(tmp_path))] == ["model.py"]


def test_a_model_that_is_one_file_has_those_of_the_same_stem(tmp_path: Path) -> None:
    for name in ("resnet.xml", "resnet.bin", "resnet2.xml", "other.bin"):
        put(tmp_path / name)
    assert [file.name for file in list_model(tmp_path / "resnet.xml")] == ["resnet.bin", "resnet.xml"]
