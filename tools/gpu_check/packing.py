"""--pack: what a machine without a network and without a checkout needs, in one archive."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from tools.gpu_check.build import ROOT

# The engine needs no third-party header but cuda.h, which comes with the CUDA toolkit there (and may not be passed on).
_PARTS = (
    "CMakeLists.txt",
    "CMakePresets.json",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "cmake",
    "csrc",
    "python",
    "benchmarks/common",
    "benchmarks/gpu",
    "tools/gpu-check",
    "tools/gpu_check",
)


def pack(folder: Path, wheels: list[Path]) -> Path:
    """fastserve-gpu-check.tar.gz in the folder: the sources, and wheels (TensorRT-RTX) that are to come along."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "fastserve-gpu-check.tar.gz"
    with tarfile.open(target, "w:gz") as archive:
        for path in _files():
            archive.add(path, Path("fastserve") / path.relative_to(ROOT))
        for wheel in wheels:
            archive.add(wheel, Path("fastserve") / "wheels" / wheel.name)
    return target


def _files() -> Iterator[Path]:
    for part in _PARTS:
        start = ROOT / part
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and path.suffix not in {".so", ".pyc", ".binpb"}
            ):
                yield path
