"""Builds plans with the real TensorRT-RTX on a machine without a GPU, by the code that the server uses, and looks at what comes.

tools/dev tensorrt-builds installs the library into a folder of its own and runs this. Its builder and its ONNX parser need no
GPU; running a plan does, and so does opening one: whether a plan is good shows on a GPU alone (tools/gpu-check).

    ONNX ResNet-50 and the MLP, three profiles each (batches of 1, 4 and 8 rows)
    the second load takes the plan from the cache, and a change of anything that the plan depends on does not
    refused, in words: garbage, a plan that is cut off, a file that is no ONNX model, an input that the file does not allow

Exit code 0: all of it was as it should be.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models

from fastserve import errors
from fastserve.gpu.tensorrt import libraries
from fastserve.gpu.tensorrt.build_profiles import Wanted
from fastserve.gpu.tensorrt.engine import open_engine
from fastserve.gpu.tensorrt.libraries import Library
from fastserve.gpu.tensorrt.onnx_plan import BuiltPlan, Gpu, plan_of
from fastserve.gpu.tensorrt.plan_cache import PlanCache
from fastserve.gpu.tensorrt.plan_file import PlanHeader, read_header
from fastserve.gpu.tensorrt.settings import BuildSettings

SIZES = (1, 4, 8)
NO_GPU = Gpu(
    "none", "0.0", "GPU-none"
)  # only names the key: without one, the builder makes plans for every GPU that it knows
DRIVER = 13_000


class Checks:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, good: bool, seen: object) -> None:
        self.rows.append({"check": name, "good": good, "seen": seen})
        print(f"{'ok  ' if good else 'FAIL'} {name}: {seen}", flush=True)

    def refused(
        self, name: str, kind: type[errors.FastserveError], words: str, call: Callable[[], object]
    ) -> None:
        try:
            call()
        except errors.FastserveError as error:
            self.add(
                name,
                type(error) is kind and words in error.message,
                f"{type(error).__name__}: {error.message}",
            )
        else:
            self.add(name, False, "accepted")


class Builds:
    """One model with a cache."""

    def __init__(self, library: Library, path: Path, store: PlanCache) -> None:
        self._library, self._path, self._store = library, path, store
        self.told: list[tuple[float, str]] = []

    def load(self, wanted: Wanted, settings: BuildSettings | None = None) -> tuple[BuiltPlan, float]:
        """-> the plan, seconds"""
        self.told.clear()
        began = time.monotonic()
        plan = plan_of(
            self._library,
            self._path,
            wanted,
            settings or BuildSettings(),
            NO_GPU,
            DRIVER,
            self._store,
            lambda share, what: self.told.append((share, what)),
        )
        return plan, time.monotonic() - began


def check_model(checks: Checks, name: str, builds: Builds, dims: tuple[int, ...]) -> BuiltPlan:
    """`dims`: of its input, the rows in front."""
    wanted = Wanted(max_batch_rows=SIZES[-1], sizes=SIZES, dims={"input": dims})
    plan, took_s = builds.load(wanted)
    size = memoryview(plan.content).nbytes
    header = read_header(memoryview(plan.content)[:64], size)
    good = plan.origin.startswith("built in") and header.library == libraries.RTX and header.version != ""
    checks.add(
        f"{name}: built for {len(SIZES)} profiles", good, f"{took_s:.2f} s, {size} bytes, {header.text}"
    )
    shares = [share for share, _ in builds.told]
    steps = list(dict.fromkeys(what for _, what in builds.told))
    checks.add(f"{name}: progress only grows", shares == sorted(shares) and len(steps) > 1, steps)
    again, again_s = builds.load(wanted)
    same = bytes(again.content) == bytes(plan.content)
    checks.add(
        f"{name}: the second load takes it from the cache",
        again.origin == "from the plan cache" and same,
        f"{again_s:.3f} s",
    )
    other, _ = builds.load(wanted, dataclasses.replace(BuildSettings(), tf32=False))
    checks.add(f"{name}: another setting, another plan", other.key != plan.key, other.origin)
    fewer, _ = builds.load(Wanted(max_batch_rows=4, sizes=(1, 4), dims={"input": dims}))
    checks.add(f"{name}: other profiles, another plan", fewer.key != plan.key, fewer.origin)
    return plan


def check_refusals(checks: Checks, library: Library, plan: BuiltPlan, folder: Path, store: PlanCache) -> None:
    content = bytes(plan.content)
    header = read_header(content[:64], len(content))

    def opened(data: bytes, said: PlanHeader) -> None:
        open_engine(library, data, "model.plan", said, NO_GPU.text, host_code=False)

    checks.refused(
        "garbage is no plan",
        errors.InvalidArgument,
        "is no TensorRT plan",
        lambda: read_header(bytes(64), 64),
    )
    checks.refused(
        "a plan that is cut off",
        errors.InvalidArgument,
        "is cut off",
        lambda: read_header(content[:64], len(content) // 2),
    )
    damaged = content[:64] + bytes(len(content) - 64)
    checks.refused(
        "garbage behind a good header, by the library",
        errors.InvalidArgument,
        "is refused by TensorRT-RTX",
        lambda: opened(damaged, header),
    )
    checks.refused(
        "half a plan, by the library",
        errors.InvalidArgument,
        "is refused by TensorRT-RTX",
        lambda: opened(content[: len(content) // 2], header),
    )
    checks.refused(
        "a plan of TensorRT is not for TensorRT-RTX",
        errors.FailedPrecondition,
        "was built by TensorRT 11.4.0.106",
        lambda: opened(content, PlanHeader(libraries.TENSORRT, "11.4.0.106")),
    )
    no_model = folder / "model.onnx"
    no_model.write_bytes(b"no model at all")
    checks.refused(
        "a file that is no ONNX model",
        errors.InvalidArgument,
        "model.onnx",
        lambda: Builds(library, no_model, store).load(Wanted()),
    )


def check_file(checks: Checks, library: Library, mlp: Path, store: PlanCache) -> None:
    builds = Builds(library, mlp, store)
    checks.refused(
        "an input of a size that the file does not allow",
        errors.InvalidArgument,
        'inputs["input"].shape[1]: got 17, want 16 (the model)',
        lambda: builds.load(Wanted(max_batch_rows=8, dims={"input": (-1, 17)})),
    )
    checks.refused(
        "types that strongly typed networks cannot change",
        errors.InvalidArgument,
        'parameters["precision"]: got "fp16", want "model"',
        lambda: builds.load(Wanted(), dataclasses.replace(BuildSettings(), precision="fp16")),
    )


def run(checks: Checks) -> Library:
    library = libraries.library(libraries.RTX)
    with tempfile.TemporaryDirectory(prefix="fastserve-plans-") as made:
        folder = Path(made)
        store = PlanCache(folder / "cache", 10 << 30)
        mlp, resnet = models.mlp().model_file, models.resnet50().model_file
        plan = check_model(checks, "MLP 16-64-10", Builds(library, mlp, store), (-1, 16))
        check_model(checks, "ResNet-50", Builds(library, resnet, store), (-1, 3, 224, 224))
        check_refusals(checks, library, plan, folder, store)
        check_file(checks, library, mlp, store)
    return library


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="JSON of what was seen")
    args = parser.parse_args()
    checks = Checks()
    library = run(checks)
    good = all(row["good"] for row in checks.rows)
    if args.out:
        facts = {
            "library": library.text,
            "gpu": None,
            "python": platform.python_version(),
            "checks": checks.rows,
        }
        args.out.write_text(json.dumps(facts, indent=1) + "\n")
    print(
        f"{sum(row['good'] for row in checks.rows)} passed, {sum(not row['good'] for row in checks.rows)} failed"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
