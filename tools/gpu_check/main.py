"""The command line of tools/gpu-check."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tools.gpu_check.build import ROOT, BuildError, Built, build, reuse
from tools.gpu_check.packing import pack
from tools.gpu_check.results import SIMULATED, Results
from tools.gpu_check.rows import BY_NAME, ROWS
from tools.gpu_check.running import Runner

NO_GPU = 77
_HELP = """
Builds the engine (no OpenVINO, no network libraries) with the GPU lane and runs every check that needs a GPU.
Wants a C++20 compiler, CMake >= 3.25, Ninja, CUDA 12 or 13 with nvcc; for the rows of PyTorch also Python >= 3.11
with its headers, pybind11, numpy and torch >= 2.8 with CUDA. No network. OUT/gpu-check.json is written after each row.

Exit code: 0 every gate passed, 1 a gate failed or a row broke, 2 it does not build, 77 there is no GPU.
"""


def main(words: list[str]) -> int:
    given = _parse(words)
    if given.list:
        print("\n".join(f"{row.name:<16} {row.floor}" for row in ROWS))
        return 0
    if given.pack is not None:
        target = pack(given.pack, given.wheel)
        print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
        return 0
    start = time.monotonic()
    if given.simulated is None and (why_not := _no_gpu()):
        print(f"gpu-check: no GPU: {why_not}", file=sys.stderr)
        return NO_GPU
    if given.simulated is not None:
        print(SIMULATED)
        if ROOT / "benchmarks" / "results" in (given.out.resolve(), *given.out.resolve().parents):
            print(
                "gpu-check: results of the simulated driver are not kept in benchmarks/results",
                file=sys.stderr,
            )
            return 2
    try:
        built = _built(given)
    except BuildError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    print(f"built in {time.monotonic() - start:.0f} s", flush=True)
    results = Results(given.out, simulated=given.simulated is not None, short=given.short)
    results.note(build_seconds=round(time.monotonic() - start, 1), missing=built.missing)
    _run_rows(given, built, results, start + given.budget)
    print(results.table())
    print(f"{results.path}: {time.monotonic() - start:.0f} s in all")
    return 1 if results.failed() else 0


def _run_rows(given: argparse.Namespace, built: Built, results: Results, until: float) -> None:
    runner = Runner(built, simulated=given.simulated, short=given.short)
    chosen = [BY_NAME[name] for name in given.only] if given.only else list(ROWS)
    for row in chosen:
        left = until - time.monotonic()
        if left < 5:
            results.add(
                {"row": row.name, "status": "skipped", "reason": f"the budget of {given.budget} s is used up"}
            )
            continue
        print(f"{row.name} ...", end=" ", flush=True)
        result = runner.run(row, min(row.limit_s, left))
        results.add(result)
        print(result["status"], result.get("reason", ""), flush=True)


def _built(given: argparse.Namespace) -> Built:
    if given.build_dir is not None:
        return reuse(given.build_dir.resolve())
    simulated = None if given.simulated is None else given.simulated.resolve()
    return build(given.out.resolve() / "build", simulated=simulated, jobs=given.jobs)


def _no_gpu() -> str:
    """Why there is none; "" = there is one. In another process: a driver that is opened stays open."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tools.gpu_check.main import devices; print(devices())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return f"the CUDA driver crashed: {done.stderr.strip()[-300:]}"
    return str(said)


def devices() -> str:
    """JSON: "" where the driver has a device, else why not."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return json.dumps(f"no CUDA driver ({error})")
    if code := driver.cuInit(0):
        return json.dumps(f"cuInit: error {code}")
    count = ctypes.c_int()
    code = driver.cuDeviceGetCount(ctypes.byref(count))
    return json.dumps("" if code == 0 and count.value else f"no device (error {code})")


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/gpu-check", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="folder for gpu-check.json and the build"
    )
    parser.add_argument(
        "--only", action="append", choices=BY_NAME, metavar="ROW", help="this row; again for more"
    )
    parser.add_argument("--list", action="store_true", help="the rows and their floors")
    parser.add_argument("--short", action="store_true", help="a tenth of the repetitions: does it run?")
    parser.add_argument(
        "--budget", type=int, default=480, metavar="S", help="seconds in all, the build included (480)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="compilers at once"
    )
    parser.add_argument(
        "--pack", type=Path, metavar="DIR", help="make an archive of the sources for such a machine"
    )
    parser.add_argument("--wheel", type=Path, action="append", default=[], help="with --pack: goes along")
    parser.add_argument(
        "--build-dir", type=Path, metavar="DIR", help="use gpu_rows from there, build nothing"
    )
    parser.add_argument(
        "--simulated", type=Path, metavar="DIR",
        help="the folder of the simulated libcuda.so.1 of the tests: tries this script, measures nothing",
    )  # fmt: skip
    given = parser.parse_args(words)
    if given.out is None and not given.list and given.pack is None:
        parser.error("OUT is missing: the folder for the results")
    return given
