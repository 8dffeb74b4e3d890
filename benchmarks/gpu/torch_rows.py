"""Rows of tools/gpu-check that need PyTorch: `python torch_rows.py ROW [--short] [--gpu-rows PATH]`, one line of JSON on stdout.

Models are plain torch with random weights, served by fastserve.Engine on the CUDA lane (fastserve.gpu.torch) and compared with
torch itself. Every value that is compared comes from fresh random inputs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_loops import BareLane, answers_per_second, bare_batches_per_second, timed
from torch_models import DEVICE, IMAGES, SCORES, Mlp, RowsSum, images, relative_error, resnet, served

from fastserve import Engine, Tensor, errors
from fastserve.gpu.backends import PYTORCH
from fastserve.worker.model import TensorSpec

MIB = 1 << 20


class Outcome:
    """Figures and gates of one row; the same JSON as gpu_rows'."""

    def __init__(self, short: bool) -> None:
        self.short = short
        self.figures: dict[str, Any] = {}
        self.floors: list[str] = []
        self.broken: list[str] = []

    def gate(self, holds: bool, floor: str) -> None:
        self.floors.append(floor)
        if not holds:
            self.broken.append(floor)

    def times(self, full: int) -> int:
        return full // 10 + 3 if self.short else full

    def report(self, row: str) -> dict[str, Any]:
        status = "failed" if self.broken else "passed"
        return {
            "row": row,
            "status": status,
            "floors": self.floors,
            "broken": self.broken,
            "figures": self.figures,
        }


def torch_copies(out: Outcome, gpu_rows: str) -> None:
    """Our page-locked copies against torch's, one after the other in one call."""
    host, device = (
        torch.empty(64 * MIB, dtype=torch.uint8).pin_memory(),
        torch.empty(64 * MIB, dtype=torch.uint8, device=DEVICE),
    )

    def best(to: torch.Tensor, source: torch.Tensor) -> float:
        least = float("inf")
        for _ in range(out.times(30)):
            start = time.perf_counter()
            to.copy_(source, non_blocking=True)
            torch.cuda.current_stream().synchronize()
            least = min(least, time.perf_counter() - start)
        return 64 * MIB / least / 1e9

    theirs = {"h2d": best(device, host), "d2h": best(host, device)}
    words = [gpu_rows, "bandwidth", *(["--short"] if out.short else [])]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    ours = json.loads(done.stdout)["figures"]
    for way in ("h2d", "d2h"):
        mine = ours[f"{way}_pinned_gb_s"]
        out.figures[f"{way}_torch_gb_s"], out.figures[f"{way}_ours_gb_s"] = theirs[way], mine
        out.gate(mine >= 0.95 * theirs[way], f"{way}: at least 0.95x of torch's page-locked copy")


def resnet50(out: Outcome, _gpu_rows: str) -> None:
    """Every size captured on every lane gives what eager FP32 gives; rows that were not asked for are not there."""
    module, reference = resnet()
    worst = 0.0
    start = time.perf_counter()
    with served(module, IMAGES, SCORES, 64) as engine:
        out.figures["load_s"] = time.perf_counter() - start
        out.figures["properties"] = engine.model("m").properties
        for rows in (64, 1, 2, 3, 5, 8, 13, 17, 33, 64, 1):
            for _ in range(2):  # both lanes
                x = images(rows)
                got = engine.infer("m", {"x": x})["y"]
                with torch.inference_mode():
                    want = reference(torch.from_numpy(x).to(DEVICE).float()).cpu().numpy()
                worst = max(worst, relative_error(got, want))
    out.figures["worst_relative_error"] = worst
    out.gate(worst < 1e-2, "relative error < 1e-2 against eager FP32, every row written")


def padding(out: Outcome, _gpu_rows: str) -> None:
    """After large values in all rows, a padded batch must not see them."""
    spec = TensorSpec("x", "FP32", [-1, 16]), TensorSpec("y", "FP32", [-1, 16])
    worst = 0.0
    with served(RowsSum(), *spec, 64, lanes=2) as engine:
        for rows in (3, 5, 9, 33, 63):
            for _ in range(4):
                engine.infer("m", {"x": np.full((64, 16), 1e6, np.float32)})
            x = np.random.default_rng().standard_normal((rows, 16), np.float32)
            worst = max(worst, relative_error(engine.infer("m", {"x": x})["y"], x + x.sum(0, keepdims=True)))
    out.figures["worst_relative_error"] = worst
    out.gate(worst < 1e-5, "padding rows are zero: nothing of another request is seen")


def resnet50_speed(out: Outcome, _gpu_rows: str) -> None:
    module, _ = resnet()
    times = out.times(400)
    bare = bare_batches_per_second(module, 32, 3, times)
    with served(module, IMAGES, SCORES, 32, lanes=3, sizes=(1, 32)) as engine:
        ours, _ = asyncio.run(answers_per_second(engine, [images(32) for _ in range(8)], 8, times))
        image = {"x": images(1)}
        one = [timed(lambda: engine.infer("m", image), 1) for _ in range(out.times(500))]
    lane = BareLane(module, 1)

    def step() -> None:
        lane.start()
        lane.wait()

    bare_one = [timed(step, 1) for _ in range(out.times(500))]
    out.figures |= {
        "bare_images_s": 32 * bare,
        "engine_images_s": 32 * ours,
        "ratio": ours / bare,
        "bare_1_row_us": statistics.median(bare_one) * 1e6,
        "engine_1_row_us": statistics.median(one) * 1e6,
    }
    out.gate(ours / bare >= 0.95, "32 rows, 3 lanes: at least 95 % of torch's replay loop with its copies")


def lanes_sweep(out: Outcome, _gpu_rows: str) -> None:
    module, _ = resnet()
    for lanes in (1, 2, 3, 4):
        with served(module, IMAGES, SCORES, 8, lanes=lanes, sizes=(8,)) as engine:
            each, _ = asyncio.run(
                answers_per_second(engine, [images(8) for _ in range(8)], 12, out.times(600))
            )
        out.figures[f"lanes_{lanes}_images_s"] = 8 * each


def mlp(out: Outcome, _gpu_rows: str) -> None:
    """What launching costs: eager kernels against one graph, one row."""
    module = Mlp().to(DEVICE).eval()
    x = torch.randn(1, 256, device=DEVICE)

    def measure(step: Callable[[], Any]) -> tuple[float, float]:
        def waited() -> None:
            step()
            torch.cuda.synchronize()

        timed(waited, 20)
        alone = timed(waited, out.times(2000))
        many = timed(step, out.times(2000))
        torch.cuda.synchronize()
        return alone * 1e6, many * 1e6

    with torch.inference_mode():
        eager = measure(lambda: module(x))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            module(x)
        captured = measure(graph.replay)
    spec = TensorSpec("x", "FP32", [-1, 256]), TensorSpec("y", "FP32", [-1, 256])
    row = np.random.default_rng().standard_normal((1, 256), np.float32)
    with served(module, *spec, 8, lanes=2) as engine:
        got = engine.infer("m", {"x": row})["y"]
        ours = timed(lambda: engine.infer("m", {"x": row}), out.times(2000))
    with torch.inference_mode():
        error = relative_error(got, module(torch.from_numpy(row).to(DEVICE)).cpu().numpy())
    out.figures |= {
        "eager_alone_us": eager[0],
        "eager_launch_us": eager[1],
        "graph_alone_us": captured[0],
        "graph_launch_us": captured[1],
        "engine_from_python_us": ours * 1e6,
        "relative_error": error,
    }
    out.gate(eager[1] / captured[1] >= 3, "one row: a graph is launched at least 3x as fast as eager kernels")
    out.gate(error < 1e-3, "the engine's answer is torch's (relative error < 1e-3)")


def cublas_race(out: Outcome, _gpu_rows: str) -> None:
    """Four lanes at once for a minute, each answer compared bit by bit with that of the same input alone."""
    module = Mlp(8, 2048, torch.float16).to(DEVICE).eval()
    spec = TensorSpec("x", "FP16", [-1, 2048]), TensorSpec("y", "FP16", [-1, 2048])
    inputs = [
        np.random.default_rng().standard_normal((8, 2048), np.float32).astype(np.float16) for _ in range(32)
    ]
    seconds = 5 if out.short else 60
    compared = wrong = 0
    with served(module, *spec, 8, lanes=4, sizes=(8,)) as engine:
        alone = [engine.infer("m", {"x": x})["y"].copy() for x in inputs]
        until = time.monotonic() + seconds

        async def client(number: int) -> None:
            nonlocal compared, wrong
            at = number
            while time.monotonic() < until:
                at = (at + 7) % len(inputs)
                got = (await engine.infer_async("m", {"x": inputs[at]}))["y"]
                compared += 1
                wrong += not np.array_equal(got.view(np.uint16), alone[at].view(np.uint16))

        async def all_clients() -> None:
            await asyncio.gather(*(client(number) for number in range(64)))

        asyncio.run(all_clients())
    out.figures |= {"seconds": seconds, "compared": compared, "mismatches": wrong}
    out.gate(compared > 1000 and wrong == 0, "4 lanes at once: 0 answers differ in a bit from those alone")


def end_to_end(out: Outcome, _gpu_rows: str) -> None:
    """Requests of one image, 64 under way: batched by the engine. No floor."""
    module, _ = resnet()
    with served(module, IMAGES, SCORES, 64, lanes=3) as engine:
        times = out.times(20_000)
        each, latencies = asyncio.run(answers_per_second(engine, [images(1) for _ in range(64)], 64, times))
        percentiles = statistics.quantiles(latencies, n=100)
        out.figures |= {
            "images_s": each,
            "p50_ms": statistics.median(latencies),
            "p99_ms": percentiles[98],
            "requests": len(latencies),
        }


def torch_files(out: Outcome, _gpu_rows: str) -> None:
    """The loader of files: torch.export and TorchScript captured, an AOTInductor package too unless --short."""
    module = Mlp(4, 64).eval()
    x = np.random.default_rng().standard_normal((5, 64), np.float32)
    with torch.inference_mode():
        want = module(torch.from_numpy(x)).numpy()
    rows = torch.export.Dim("rows", min=1, max=64)
    with tempfile.TemporaryDirectory() as folder, Engine() as engine:
        files = {name: Path(folder, name, suffix) for name, suffix in _FILES.items()}
        for path in files.values():
            path.parent.mkdir()
        example, shapes = (torch.ones(2, 64),), {"x": {0: rows}}
        torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), files["exported"])
        torch.jit.save(torch.jit.trace(module, example), files["script"])
        if out.short:
            del files["compiled"]
        else:
            on_gpu = torch.export.export(module.to(DEVICE), (example[0].to(DEVICE),), dynamic_shapes=shapes)
            torch._inductor.aoti_compile_and_package(on_gpu, package_path=str(files["compiled"]))
        for name, path in files.items():
            error = _file_error(engine, name, path, x, want)
            out.figures[f"{name}_relative_error"] = error
            out.gate(error < 1e-3, f"{name}: relative error < 1e-3, captured")
        drops = torch.export.export(torch.nn.Dropout(0.5).train(), (torch.ones(2, 3),))
        torch.export.save(drops, Path(folder, "drops.pt2"))
        try:
            engine.load("drops", Path(folder, "drops.pt2"), backend=PYTORCH, max_batch_rows=0)
            refused = ""
        except errors.InvalidArgument as error:
            refused = error.message
    out.figures["refused"] = refused
    out.gate("aten.dropout" in refused, "a program that draws random numbers is refused by its operation")


_FILES = {"exported": "model.pt2", "script": "model.pt", "compiled": "model.pt2"}


def _file_error(engine: Engine, name: str, path: Path, x: Any, want: Any) -> float:
    ports: dict[str, Any] = {}
    answer = "output_0"
    if name != "exported":
        answer = "OUTPUT__0"
        ports = {"inputs": [Tensor("x", "FP32", (-1, 64))], "outputs": [Tensor(answer, "FP32", (-1, 64))]}
    engine.load(name, path, backend=PYTORCH, max_batch_rows=8, **ports)
    return relative_error(engine.infer(name, {"x": x})[answer], want)


def fallback(out: Outcome, _gpu_rows: str) -> None:
    """What cannot be captured runs batch by batch and says so."""

    class Looks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum().item() > 0 else x * 3

    spec = TensorSpec("x", "FP32", [-1, 16]), TensorSpec("y", "FP32", [-1, 16])
    with served(Looks(), *spec, 8, lanes=2, load=False) as engine:
        # The zeros of the warm-up and a positive request take different ways: a graph would have kept one of them.
        engine.load("m", backend="module", max_batch_rows=8, parameters={"lanes": "2"})
        x = np.abs(np.random.default_rng().standard_normal((3, 16), np.float32))
        got = engine.infer("m", {"x": x})["y"]
        out.figures["properties"] = engine.model("m").properties
    out.gate(np.array_equal(got, x * 2), "an uncapturable model answers right, through Python")


def rtx_validity(out: Outcome, _gpu_rows: str) -> None:
    """Whether TensorRT-RTX takes this GPU at all. A "no" is a finding, no failure."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    given = network.add_input("x", trt.float32, (8, 8))
    network.mark_output(network.add_activation(given, trt.ActivationType.RELU).get_output(0))
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    runtime = trt.Runtime(logger)
    out.figures["version"] = trt.__version__
    out.figures["validity"] = str(runtime.get_engine_validity(plan))
    out.figures["opens"] = runtime.deserialize_cuda_engine(plan) is not None


ROWS: dict[str, Callable[[Outcome, str], None]] = {
    row.__name__: row
    for row in (
        torch_copies,
        resnet50,
        padding,
        resnet50_speed,
        lanes_sweep,
        mlp,
        cublas_race,
        end_to_end,
        torch_files,
        fallback,
        rtx_validity,
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--gpu-rows", default="gpu_rows")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} sees no GPU", file=sys.stderr)
        return 77
    out = Outcome(given.short)
    ROWS[given.row](out, given.gpu_rows)
    print(json.dumps(out.report(given.row)))
    return 1 if out.broken else 0


if __name__ == "__main__":
    sys.exit(main())
