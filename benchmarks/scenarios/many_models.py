"""1,000 small models: how long a start takes, what a listing costs, and whether one reload touches the others."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from harness.bench import Bench
from harness.blocks import Block, Sample, interleave
from harness.processes import BenchError
from harness.report import Result, at_most, contrast
from harness.swapper import Asking, version_model

MANY = 1000
START, LISTING = f"{MANY:,} models", "fastserve"
HIDDEN = 16  # of their dense layers


def run(bench: Bench) -> Result:
    with tempfile.TemporaryDirectory(prefix="fastserve-many-") as folder:
        models = Path(folder) / "models"
        model = version_model(1, HIDDEN)
        for number in range(MANY):
            (models / f"m{number:04}" / "1").mkdir(parents=True)
            (models / f"m{number:04}" / "1" / "model.onnx").write_bytes(model)
        samples = interleave([Block(START, LISTING, lambda: measure(bench, models))], bench.rounds)

    return Result(
        "many_models",
        f"{MANY:,} OpenVINO models FP32 [N,16] of four small layers, no configuration; a new server each time, all CPUs. Start: "
        "from the process's start to its ready file. Listing: POST /v2/repository/index over a connection, median of 20. Reload: "
        "one model gets a second version, by API; the others are asked meanwhile.",
        samples,
        [
            at_most("start", samples.spread(START, LISTING, "ready_s"), 30, " s"),
            at_most("listing", samples.spread(START, LISTING, "listing_ms"), 50, " ms"),
            at_most("other models that were loaded again", samples.spread(START, LISTING, "touched"), 0),
            at_most("requests to others that failed meanwhile", samples.spread(START, LISTING, "failed"), 0),
            contrast("one reload", samples.spread(START, LISTING, "reload_s"), " s"),
        ],
        [
            ("ready_s", "seconds until ready"),
            ("listing_ms", "listing, ms"),
            ("reload_s", "one reload, s"),
            ("threads", "threads"),
            ("resident_mb", "resident MB"),
        ],
    )


def measure(bench: Bench, models: Path) -> Sample:
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        arguments = ("--model-control-mode", "explicit", "--load-model", "*")
        server = bench.start_fastserve(stack, models, bench.all_cpus, *arguments)
        if server is None:
            raise BenchError("many_models wants fastserve")
        ready_s = time.monotonic() - began
        asking = Asking(server.addresses["http"])
        stack.callback(asking.close)
        listings = [_listing(asking) for _ in range(20)]
        before = _loads(asking)
        new = models / "m0000" / "2"
        new.mkdir(exist_ok=True)
        (new / "model.onnx").write_bytes(version_model(2, HIDDEN))
        began = time.monotonic()
        status, answer = asking.call("POST", "/v2/repository/models/m0000/load")
        reload_s = time.monotonic() - began
        failed = sum(asking.version(f"m{number:04}") != 1 for number in range(1, MANY, 50))
        if status != 200 or asking.version("m0000") != 2:
            raise BenchError(f"the reload failed: {answer}")
        after = _loads(asking)
        process = Path(f"/proc/{server.process.pid}")
        resident = process.joinpath("statm").read_text().split()[1]
        found: Sample = {
            "ready_s": ready_s,
            "listing_ms": 1e3 * statistics.median(listings),
            "reload_s": reload_s,
            "failed": float(failed),
            "touched": float(
                sum(after.get(name) != state for name, state in before.items() if name != "m0000")
            ),
            "threads": len(list(process.joinpath("task").iterdir())),
            "resident_mb": int(resident) * 4096 / 1e6,
        }
    (new / "model.onnx").unlink()
    new.rmdir()
    return found


def _listing(asking: Asking) -> float:
    began = time.monotonic()
    status, index = asking.call("POST", "/v2/repository/index")
    if status != 200 or len(index) < MANY:
        raise BenchError(f"the listing: {status}, {len(index)} entries")
    return time.monotonic() - began


def _loads(asking: Asking) -> dict[str, tuple[str, str]]:
    """Name -> version and state."""
    _, index = asking.call("POST", "/v2/repository/index")
    return {entry["name"]: (entry.get("version", ""), entry.get("state", "")) for entry in index}
