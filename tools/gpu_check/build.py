"""Builds what the rows need: gpu_rows, the kernels, and a Python package `fastserve` of the sources and what was built.

The CMake preset gpu-check: the engine without network libraries and OpenVINO, with the GPU lane. It wants a C++20 compiler,
CMake, Ninja, cuda.h and, for the Python package, a Python >= 3.11 with its headers and pybind11: no library of
tools/debian-packages.txt, and no network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Built:
    gpu_rows: Path
    kernels: Path | None = None  # PTX
    package: Path | None = None  # folder for PYTHONPATH
    missing: dict[str, str] = field(default_factory=dict)  # what a row may need -> why it is not there


class BuildError(Exception):
    """With the end of the log."""


def build(folder: Path, *, simulated: Path | None, jobs: int) -> Built:
    """`simulated`: the folder of a simulated libcuda.so.1; no kernels then. BuildError: gpu_rows cannot be built."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "build.log"
    log.write_text("")
    missing: dict[str, str] = {}
    python = _python_obstacle()
    if python:
        missing["engine"] = python
    switch = "OFF" if python else "ON"
    configure = ["cmake", "--preset", "gpu-check", "-B", str(folder), f"-DFASTSERVE_PYTHON={switch}"]
    _run([*configure, f"-DPython_EXECUTABLE={sys.executable}"], log)
    targets = ["gpu_rows", *([] if python else ["_core", "_worker"])]
    _run(["cmake", "--build", str(folder), "-j", str(jobs), "--target", *targets], log)
    built = Built(gpu_rows=find_gpu_rows(folder), missing=missing)
    built.kernels = folder / "kernels.ptx"
    if simulated is None and (why_not := _kernels(built.kernels, log)):
        built.kernels, missing["kernels"] = None, why_not
    if not python:
        built.package = _package(folder)
    return built


def reuse(folder: Path) -> Built:
    """What an earlier build, or another preset, left in its folder: gpu_rows alone, for the simulated driver."""
    return Built(find_gpu_rows(folder), folder / "kernels.ptx", None, {"engine": "--build-dir was given"})


def find_gpu_rows(folder: Path) -> Path:
    for path in (folder / "benchmarks" / "gpu" / "gpu_rows", folder / "gpu_rows"):
        if path.exists():
            return path
    raise BuildError(f"{folder}: gpu_rows is not there; was it built with the GPU lane (cuda.h)?")


def _python_obstacle() -> str:
    """Why the extension modules cannot be built; "" = nothing."""
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        return (
            f"{header} is missing (the headers of Python {sys.version_info.major}.{sys.version_info.minor})"
        )
    for module in ("pybind11", "numpy"):
        if subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, check=False
        ).returncode:
            return f"{sys.executable} has no {module}"
    return ""


def _kernels(target: Path, log: Path) -> str:
    """ "" or why there are none."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        return "nvcc is missing"
    source = ROOT / "benchmarks" / "gpu" / "kernels.cu"
    try:
        _run([nvcc, "-ptx", "-arch=compute_75", "-o", str(target), str(source)], log)
    except BuildError as error:
        return f"nvcc: {error}"
    return ""


def _package(folder: Path) -> Path:
    """Links: the Python sources and the extension modules in one folder, as an installation has them."""
    package = folder / "python" / "fastserve"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for path in (ROOT / "python" / "fastserve").iterdir():
        if path.name != "__pycache__" and path.suffix != ".so":
            (package / path.name).symlink_to(path)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for name in ("libfastserve.so", f"_core{suffix}", f"_worker{suffix}"):
        (package / name).symlink_to(folder / name)
    return package.parent


def _run(words: list[str], log: Path) -> None:
    with log.open("a") as out:
        out.write("$ " + " ".join(words) + "\n")
        out.flush()
        try:
            done = subprocess.run(
                words, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, check=False, env=os.environ
            )
        except OSError as error:
            raise BuildError(f"{words[0]}: {error.strerror}") from None
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise BuildError(
            f"{' '.join(words[:3])} failed (exit code {done.returncode}); the end of {log}:\n{end}"
        )
