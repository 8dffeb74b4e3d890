"""Label files, alone and through a scan of a repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastserve.lifecycle import scan_repositories
from fastserve.lifecycle.labels import MAX_LABEL_BYTES, label_name_error, read_labels

CONFIG = """backend: "identity"
input { name: "x" data_type: TYPE_FP32 dims: 3 }
output { name: "y" data_type: TYPE_FP32 dims: 3
  label_filename: "%s" }
"""


def model(root: Path, name: str) -> Path:
    folder = root / "m"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG % name)
    return folder


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"", ()),
        (b"a", ("a",)),
        (b"a\n", ("a",)),
        (b"a\nb\n\n", ("a", "b", "")),
        (b"a\r\nb\r\n", ("a", "b")),
        (b"\xef\xbb\xbfa b\n:x\n", ("a b", ":x")),
        ("grüße\n".encode(), ("grüße",)),
    ],
)
def test_lines(tmp_path: Path, content: bytes, labels: tuple[str, ...]) -> None:
    (tmp_path / "l").write_bytes(content)
    assert read_labels(tmp_path / "l") == labels


def test_what_is_no_label_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_labels(tmp_path / "l")
    with pytest.raises(ValueError, match="no file"):
        read_labels(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no file"):
        read_labels(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"a\n\xe4\n")
    with pytest.raises(ValueError, match="line 2 is not UTF-8"):
        read_labels(tmp_path / "latin")


@pytest.mark.parametrize(("extra", "good"), [(-1, True), (0, True), (1, False)])
def test_the_limit(tmp_path: Path, extra: int, good: bool) -> None:
    (tmp_path / "l").write_bytes(b"a" * (MAX_LABEL_BYTES + extra))
    if good:
        assert len(read_labels(tmp_path / "l")) == 1
    else:
        with pytest.raises(ValueError, match=str(MAX_LABEL_BYTES)):
            read_labels(tmp_path / "l")


@pytest.mark.parametrize("name", ["/etc/passwd", "../labels.txt", "a/../../b", ".", "a\0b"])
def test_names_that_leave_the_folder(name: str) -> None:
    assert "leaves the model's folder" in label_name_error(name)


def test_labels_reach_the_spec_and_change_it(tmp_path: Path) -> None:
    folder = model(tmp_path, "labels.txt")
    (folder / "labels.txt").write_text("a\nb\n")
    first = scan_repositories([tmp_path]).wanted["m"][1]
    assert first.labels == (("y", ("a", "b")),)
    assert first.to_core().labels == {"y": ["a", "b"]}
    (folder / "labels.txt").write_text("a\nc\n")
    assert scan_repositories([tmp_path]).wanted["m"][1] != first


@pytest.mark.parametrize("missing", ["does not exist", "leaves the repository"])
def test_a_model_without_its_labels_is_refused_with_file_and_line(tmp_path: Path, missing: str) -> None:
    folder = model(tmp_path / "repository", "labels.txt")
    if missing == "leaves the repository":
        (tmp_path / "secret").write_text("a")
        (folder / "labels.txt").symlink_to(tmp_path / "secret")
    scan = scan_repositories([tmp_path / "repository"])
    assert scan.wanted == {}
    (problem,) = scan.problems
    assert str(problem).startswith("m/config.pbtxt:4: output.label_filename: 'labels.txt': ")
    assert missing in str(problem)
