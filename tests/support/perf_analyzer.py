"""Triton's load generator, as it ships inside the tritonclient wheel, against a server of ours.

It is linked against libcudart.so.12 and calls it only for CUDA shared memory: the wheel nvidia-cuda-runtime-cu12 has it
(extra `peers` of pyproject.toml), no driver and no GPU are needed. `tools/dev perf-analyzer` installs it and runs the cases.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RUN_S = 120.0
# Any two windows agree: how fast it is and how steady is not what is looked at here.
SHORT = ("--measurement-interval", "300", "--max-trials", "5", "--stability-percentage", "99999")
# What it says of a machine without GPUs, and of one that is too busy to send in time: whichever server it talks to.
NOT_OURS = ("Unable to parse 'nv_gpu_", "was not able to keep up with the desired request rate")
COMPLAINTS = ("warning", "error", "failed", "unable", "no valid requests")


@dataclass(frozen=True)
class Case:
    model: str  # of model_repository.py
    arguments: tuple[str, ...]
    protocols: tuple[str, ...] = ("grpc", "http")


CASES: dict[str, Case] = {
    "synchronous": Case("batch_fp32", ("--sync",)),
    "asynchronous": Case("batch_fp32", ("--async", "--concurrency-range", "4")),
    "streaming": Case("batch_fp32", ("--streaming", "--concurrency-range", "8"), ("grpc",)),
    "streaming on one stream": Case(
        "batch_fp32", ("--streaming", "--concurrency-range", "8", "--max-threads", "1"), ("grpc",)
    ),
    "batches and a range of concurrency": Case("pair", ("-b", "4", "--concurrency-range", "1:5:4")),
    "a shape": Case("any_fp32", ("--shape", "INPUT0:30,40")),
    "zeros": Case("plain_fp32", ("--input-data", "zero")),
    "texts": Case("any_bytes", ("--shape", "INPUT0:5", "--string-length", "40")),
    "a version": Case("versions", ("-x", "3")),
    "a request rate": Case("batch_int64", ("--request-rate-range", "100:200:100")),
    "a Poisson rate": Case(
        "batch_uint8", ("--request-rate-range", "100", "--request-distribution", "poisson", "--async")
    ),
    "counted windows": Case(
        "batch_fp16", ("--measurement-mode", "count_windows", "--measurement-request-count", "50")
    ),
    "compressed": Case(
        "any_fp32", ("--shape", "INPUT0:30,40", "--grpc-compression-algorithm", "gzip"), ("grpc",)
    ),
    "large tensors": Case("any_fp32", ("--shape", "INPUT0:500,500", "--concurrency-range", "2")),
    "an OpenVINO model": Case("mlp", ("-b", "2", "--concurrency-range", "2")),
    "metrics and a table": Case("batch_fp64", ("--collect-metrics", "--verbose-csv")),
}


def program() -> Path | None:
    found = Path(sys.executable).parent / "perf_analyzer"
    return found if found.exists() else None


def cuda_runtime() -> Path | None:
    """The folder with libcudart.so.12, out of the wheel."""
    spec = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.cuda_runtime")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / "lib" / "libcudart.so.12").exists():
            return Path(folder) / "lib"
    return None


def missing() -> str:
    """Why it cannot run here; "" when it can."""
    if program() is None:
        return "perf_analyzer is not installed (tritonclient 2.41 has it)"
    if cuda_runtime() is None:
        return "no libcudart.so.12: pip install nvidia-cuda-runtime-cu12, or tools/dev perf-analyzer"
    return ""


@dataclass(frozen=True)
class Run:
    code: int
    output: str

    @property
    def complaints(self) -> list[str]:
        return [
            line
            for line in self.output.splitlines()
            if any(word in line.lower() for word in COMPLAINTS) and not any(text in line for text in NOT_OURS)
        ]

    def figure(self, name: str) -> int:
        """A figure of its report of the last step, as `Successful request count`."""
        lines = [line for line in self.output.splitlines() if line.strip().startswith(f"{name}:")]
        return int(lines[-1].rpartition(":")[2])


def run(case: Case, protocol: str, address: str, metrics: str, table: Path) -> Run:
    """`table`: where --verbose-csv goes."""
    arguments = list(case.arguments)
    if "--collect-metrics" in arguments:
        arguments += ["--metrics-url", f"{metrics}/metrics", "-f", str(table)]
    done = subprocess.run(
        [str(program()), "-m", case.model, "-i", protocol, "-u", address, *SHORT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_S,
        env={**os.environ, "LD_LIBRARY_PATH": str(cuda_runtime())},
    )
    return Run(done.returncode, done.stdout)
