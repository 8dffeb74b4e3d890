"""What can be said about a version without a GPU and without a library: for `fastserve check`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from fastserve.errors import FastserveError
from fastserve.gpu.tensorrt.libraries import NAMES, RTX, TENSORRT
from fastserve.gpu.tensorrt.onnx_file import hashes
from fastserve.gpu.tensorrt.open_model import ONNX_SUFFIX
from fastserve.gpu.tensorrt.plan_file import HEADER_BYTES, read_header
from fastserve.gpu.tensorrt.settings import read_settings

# What pip knows them by.
_DISTRIBUTIONS = {
    TENSORRT: ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"),
    RTX: ("tensorrt_rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12"),
}


def look_at(path: str, parameters: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(problems, notes) of a version's file and parameters."""
    problems: list[str] = []
    notes: list[str] = []
    file = Path(path)
    try:
        read_settings(parameters)
    except FastserveError as error:
        problems.append(error.message)
    try:
        if file.suffix == ONNX_SUFFIX:
            hashes(file, file.read_bytes())
            notes.append(
                f"'{file.name}' is built into a plan at its first load on a GPU, which takes its time"
            )
        else:
            notes += _plan_notes(file)
    except FastserveError as error:
        problems.append(f"'{file.name}' {error.message}")
    except OSError as error:
        problems.append(f"'{file.name}' cannot be read: {error.strerror or error}")
    return problems, notes


def _plan_notes(file: Path) -> list[str]:
    with file.open("rb") as opened:
        header = read_header(opened.read(HEADER_BYTES), file.stat().st_size)
    here = installed_version(header.library)
    if not here:
        return [f"'{file.name}' was built by {header.text}; {NAMES[header.library]} is not installed here"]
    if header.version and not _same(header.version, here):
        return [f"'{file.name}' was built by {header.text}, here is {here}: it needs version compatibility"]
    return [f"'{file.name}' was built by {header.text}"]


def installed_version(library: str) -> str:
    """By pip's records, because importing the library without a driver is not safe; "" = it is not installed."""
    for name in _DISTRIBUTIONS[library]:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _same(built: str, here: str) -> bool:
    """pip's version may lack the last part."""
    parts = here.split("+")[0].split(".")
    return built.split(".")[: len(parts)] == parts
