"""Label files: what `output { label_filename: "labels.txt" }` names, one label a line, the n-th for the n-th class."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

MAX_LABEL_BYTES = 16 << 20  # of a file; ImageNet's has 30 KB

Labels = tuple[tuple[str, tuple[str, ...]], ...]  # (output, its labels), by output


class LabelFile(NamedTuple):
    output: str
    name: str  # in the model's folder
    line: int  # of config.pbtxt


def label_name_error(name: str) -> str:
    """What is wrong with a label_filename; "" when nothing is."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        return f"'{name[:140]}' leaves the model's folder"
    return ""


def read_labels(path: Path) -> tuple[str, ...]:
    """ValueError says why the file cannot be used. An empty line is a class without a label; so is what lies behind the
    last line."""
    if not path.is_file():  # a FIFO would block
        raise ValueError(
            "is a broken link or no file" if path.is_symlink() or path.exists() else "does not exist"
        )
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABEL_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(content) > MAX_LABEL_BYTES:
        raise ValueError(f"has more than {MAX_LABEL_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 text") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    return tuple(lines)
