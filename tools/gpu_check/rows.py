"""The checks, in the order in which they run: what has a gate and is quick comes first, so that a cut costs little."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    name: str
    runs: str  # "gpu_rows" (C++), "torch_rows" (Python), "here" (tools/gpu_check/running.py)
    floor: str
    limit_s: int
    needs: tuple[
        str, ...
    ] = ()  # "kernels" (nvcc), "torch", "engine" (the Python package), "tensorrt_rtx", "compute-sanitizer"


_ENGINE = ("torch", "engine")

ROWS = (
    Row("idle", "here", "nvidia-smi: no other process computes (<= 5 %)", 20),
    Row("driver", "gpu_rows", "every function of the table, a primary context", 30),
    Row("bandwidth", "gpu_rows", "report; judged by torch_copies", 30),
    Row("overlap", "gpu_rows", "both directions at once > 1.6x one", 30),
    Row("graph_launch", "gpu_rows", "<= 5 us of CPU, <= 1.5x from 1 to 300 nodes", 40, ("kernels",)),
    Row("completion", "gpu_rows", "report: poll, blocking, hostfunc, flag", 60, ("kernels",)),
    Row("dev_shm", "gpu_rows", "equal data through page-locked /dev/shm", 30),
    Row("ipc", "gpu_rows", "equal data in a second process", 30),
    Row("added_latency", "gpu_rows", "one row: <= 15 us over the bare loop", 40, ("kernels",)),
    Row("lanes", "gpu_rows", "32 rows, 3 lanes: >= 95 % of the bare loop", 90, ("kernels",)),
    Row("fault", "gpu_rows", "all answered, exit code 70, the next process serves", 60, ("kernels",)),
    Row("ledger", "gpu_rows", "< 1 MiB lost after 50 loads and unloads", 60, ("kernels",)),
    Row("torch_copies", "torch_rows", ">= 0.95x of torch's page-locked copies", 60, ("torch",)),
    Row("resnet50", "torch_rows", "relative error < 1e-2 for every size", 120, _ENGINE),
    Row("padding", "torch_rows", "nothing of another request in padded batches", 60, _ENGINE),
    Row("mlp", "torch_rows", "graph >= 3x eager launches, one row", 60, _ENGINE),
    Row("resnet50_speed", "torch_rows", ">= 95 % of torch's replay loop", 90, _ENGINE),
    Row("cublas_race", "torch_rows", "0 answers differ in a bit, 60 s", 120, _ENGINE),
    Row("fallback", "torch_rows", "an uncapturable model answers right", 60, _ENGINE),
    Row("end_to_end", "torch_rows", "report: infer_async, 64 in flight", 90, _ENGINE),
    Row("memcheck", "here", "compute-sanitizer: 0 errors", 120, ("kernels", "compute-sanitizer")),
    Row("lanes_sweep", "torch_rows", "report: 1 to 4 lanes", 90, _ENGINE),
    Row("torch_files", "torch_rows", ".pt2, TorchScript, AOTInductor: error < 1e-3", 150, _ENGINE),
    Row(
        "rtx_validity",
        "torch_rows",
        "report: whether TensorRT-RTX takes this GPU",
        60,
        ("torch", "tensorrt_rtx"),
    ),
)
BY_NAME = {row.name: row for row in ROWS}
