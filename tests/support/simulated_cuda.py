"""The simulated CUDA driver (tests/simulated_cuda) for tests in Python: compiled when its sources change, and kept under build/.

It stands in for NVIDIA's libcuda.so.1 in a process that is started with `environment()`. Nothing that runs on it has seen a GPU.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "simulated_cuda"


def header_folder() -> Path | None:
    """The folder of cuda.h: a toolkit's, or that of the wheel nvidia-cuda-runtime."""
    found = [
        "/usr/local/cuda/include",
        *(folder for path in sys.path for folder in glob.glob(f"{path}/nvidia/cu13/include")),
    ]
    return next((Path(folder) for folder in found if (Path(folder) / "cuda.h").exists()), None)


@cache
def library() -> Path:
    """libcuda.so.1, up to date. Raises LookupError where there is no cuda.h to compile it with."""
    header = header_folder()
    if header is None:
        raise LookupError("no cuda.h: pip install nvidia-cuda-runtime")
    sources = sorted(SOURCES.glob("*.cc"))
    digest = hashlib.sha256(str(header).encode())
    for file in (*sources, *sorted(SOURCES.glob("*.h")), ROOT / "csrc" / "backend" / "cuda_driver.h"):
        digest.update(file.read_bytes())
    folder = ROOT / "build" / "simulated_cuda"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:  # several pytest processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = folder / digest.hexdigest()[:16] / "libcuda.so.1"
        if not built.exists():
            built.parent.mkdir(exist_ok=True)
            part = built.with_suffix(f".{os.getpid()}")
            compiler = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"]
            folders = ["-I", ROOT / "csrc", "-I", ROOT / "tests", "-isystem", header]
            subprocess.run([*compiler, *folders, "-o", part, *sources, "-lpthread"], check=True)
            part.rename(built)
    return built


def environment(**settings: str | int) -> dict[str, str]:
    """For a program that is to run on it; `missing="cuGraphLaunch"`, `devices=2`: tests/simulated_cuda/README.md."""
    inherited = {name: text for name, text in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    found = os.environ.get("LD_LIBRARY_PATH")
    return {
        **inherited,
        "LD_LIBRARY_PATH": f"{library().parent}:{found}" if found else str(library().parent),
        **{f"SIMULATED_CUDA_{name.upper()}": str(value) for name, value in settings.items()},
    }
