"""Data of warm-up requests: `input_data_file: "cat.bin"` is <model>/warmup/cat.bin, with the wire bytes of one row."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fastserve.lifecycle.tensor_types import ELEMENT_BYTES
from fastserve.scheduling import WarmUpInput

FOLDER = "warmup"
MAX_BYTES = 256 << 20  # of a file


class WarmUpFile(NamedTuple):
    sample: int  # in the order of the configuration
    input: str
    name: str  # in the folder `warmup`
    field: str  # how the configuration spells the place, and where
    line: int


def file_name_error(name: str) -> str:
    """What is wrong with an input_data_file; "" when nothing is."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        return f"'{name[:140]}' leaves the folder {FOLDER}"
    return ""


def read_row(path: Path, wanted: WarmUpInput) -> tuple[bytes, int]:
    """One row and how many bytes of the file lie behind it (Triton ignores them too). ValueError says what is wrong."""
    if not path.is_file():  # a FIFO would block
        there = path.is_symlink() or path.exists()
        raise ValueError("is a broken link or no file" if there else "does not exist")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    elements = math.prod(wanted.dims)
    used = _texts_bytes(content, elements)
    if wanted.datatype in ELEMENT_BYTES:
        used = elements * ELEMENT_BYTES[wanted.datatype]
    if used > len(content):
        shape = f"{wanted.datatype}[{','.join(map(str, wanted.dims))}]"
        raise ValueError(f"has {len(content)} bytes, want at least {used} for one row {shape}")
    return content[:used], len(content) - used


def _texts_bytes(content: bytes, elements: int) -> int:
    """Bytes of so many texts, each behind its length (4 bytes, little-endian); more than there are when some are cut."""
    at = 0
    for _ in range(elements):
        if at + 4 > len(content):
            return at + 4
        at += 4 + int.from_bytes(content[at : at + 4], "little")
        if at > len(content):
            return at
    return at
