"""No shared object that is shipped asks the loader for anything of NVIDIA's: one build for machines with and without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastserve
from fastserve import _core

NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
NVIDIA = re.compile(r"cuda|cudart|nvinfer|nvrtc|cublas|cudnn|nvidia|nvml|tensorrt", re.I)

FOLDER = Path(fastserve.__file__).parent
SHIPPED = sorted(path for path in FOLDER.rglob("*.so*") if path.is_file())


def test_there_is_something_to_look_at() -> None:
    names = {path.name.split(".")[0] for path in SHIPPED}
    assert {"_core", "_io", "_worker", "libfastserve", "libfastserve_openvino"} <= names


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_objects_need_nothing_of_cuda(path: Path) -> None:
    dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
    needed = NEEDED.findall(dynamic)
    assert needed, "readelf says nothing of it"
    assert [name for name in needed if NVIDIA.search(name)] == []
    # Nor are there symbols that only a driver could define.
    symbols = subprocess.run(
        ["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True
    )
    assert [line for line in symbols.stdout.split() if re.fullmatch(r"cu[A-Z]\w+|nvml[A-Z]\w+", line)] == []


def test_no_simulated_driver_is_shipped() -> None:
    assert [
        path for path in FOLDER.rglob("*") if "libcuda" in path.name or "simulated_cuda" in path.name
    ] == []


def test_importing_opens_no_driver() -> None:
    """Nor does loading the engine: the driver is opened by the first model that wants a GPU."""
    program = "import fastserve, sys; fastserve.Engine().close(); print(open('/proc/self/maps').read())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
        check=True,
    )
    assert "libcuda" not in done.stdout


@pytest.mark.skipif(not _core.has_gpu_lane, reason="built without the GPU lane")
def test_the_lane_is_in_the_library_all_the_same() -> None:
    library = next(path for path in SHIPPED if path.name == "libfastserve.so")
    assert b"cuGraphLaunch\0" in library.read_bytes()
