"""The bare OpenVINO limit as a contender: one process that measures several cases, its runs handed out one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.bench import Bench
from harness.processes import run_tool


def openvino_properties(precision: str, streams: int, threads: int) -> dict[str, str]:
    """For `parameters` of a model served by fastserve: the same settings as measure() gives to the bare side."""
    return {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": str(streams),
        "INFERENCE_NUM_THREADS": str(threads),
    }


def measure(
    bench: Bench,
    model: Path,
    cases: Sequence[str],
    streams: int,
    threads: int,
    *extra: str,
    cpus: list[int] | None = None,
    precision: str | None = None,
) -> dict[str, dict[str, Any]]:
    """{case: run}; a case is BATCHxINFLIGHT as openvino_limit has it."""
    command: list[str | Path] = [bench.tool("openvino_limit"), "--model", model, "--cases", ",".join(cases)]
    command += [
        "--precision",
        precision or bench.precision,
        "--streams",
        str(streams),
        "--threads",
        str(threads),
    ]
    command += ["--seconds", str(bench.seconds), "--warmup", str(bench.warmup_s)]
    command += ["--cache-dir", bench.models / "openvino-cache", *extra]
    result = run_tool(command, cpus, limit_s=len(cases) * (bench.seconds + bench.warmup_s) + 180)
    return {run["case"]: {**run, "qps": run["rows_per_s"]} for run in result["runs"]}
