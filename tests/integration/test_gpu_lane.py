"""A whole server with a model on the GPU lane: the simulated CUDA driver and the simulated module `tensorrt` stand for what is
not here. Not a GPU test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated_tensorrt
import tritonclient.grpc as grpc
import tritonclient.http as http
from process_figures import wait_until
from running_server import RunningServer
from tritonclient.utils import InferenceServerException

import simulated_cuda

PROGRAM = [sys.executable, str(Path(__file__).resolve().parents[1] / "support" / "serve_tensorrt.py")]
CONFIG = """
platform: "tensorrt_plan" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
instance_group { kind: KIND_GPU count: 1 }
parameters { key: "lanes" value { string_value: "2" } }
parameters { key: "watchdog_ms" value { string_value: "300" } }
"""
X = np.arange(12, dtype=np.float32).reshape(3, 4)
GPU_LOST = 70  # exit code, csrc/README.md

Serve = Callable[..., RunningServer]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name, file, content in (
        ("plan", "model.plan", simulated_tensorrt.plan(simulated_tensorrt.network())),
        ("built", "model.onnx", simulated_tensorrt.onnx(simulated_tensorrt.network())),
    ):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / file).write_bytes(content)
        text = CONFIG if name == "plan" else CONFIG + 'default_model_filename: "model.onnx"\n'
        (root / name / "config.pbtxt").write_text(text)
    return root


@pytest.fixture
def serve(tmp_path: Path, repository: Path) -> Iterator[Serve]:
    servers: list[RunningServer] = []

    def start(*arguments: str, **settings: str | int) -> RunningServer:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        try:
            environment = simulated_cuda.environment(**settings)
        except LookupError as error:
            pytest.skip(str(error))
        cache = ("--tensorrt-plan-cache", str(tmp_path / "plans"))
        servers.append(
            RunningServer(repository, folder, *cache, *arguments, program=PROGRAM, environment=environment)
        )
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(server: RunningServer, model: str, way: str, x: np.ndarray = X) -> np.ndarray:
    module: Any = {"grpc": grpc, "http": http}[way]
    tensor = module.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    with module.InferenceServerClient(getattr(server, way)) as client:
        answer: np.ndarray = client.infer(model, [tensor]).as_numpy("y")
    return answer


def is_ready(server: RunningServer) -> bool:
    try:
        with urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def test_plans_and_onnx_files_are_served_and_told_of(serve: Serve) -> None:
    server = serve()
    for model in ("plan", "built"):
        for way in ("grpc", "http"):
            for rows in (1, 3, 8):
                x = np.random.default_rng(rows).random((rows, 4), np.float32)
                assert np.array_equal(ask(server, model, way, x), 2 * x)
    with http.InferenceServerClient(server.http) as client:
        config = client.get_model_config("plan")
        metadata = client.get_model_metadata("plan")
    assert config["instance_group"][0]["kind"] == "KIND_GPU"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    figures = server.scrape()
    ran = {name: value for name, value in figures.items() if name.startswith("fastserve_gpu_batches_total")}
    assert sum(ran.values()) >= 12, figures
    assert any('how="graph"' in name for name in ran), ran
    lost = [value for name, value in figures.items() if name.startswith("fastserve_gpu_lost")]
    assert lost == [0]
    held = sum(value for name, value in figures.items() if name.startswith("fastserve_gpu_model_bytes"))
    assert held > 0
    assert any(name.startswith("fastserve_pinned_memory") and value > 0 for name, value in figures.items())


def test_the_next_start_takes_the_plan_from_the_cache(serve: Serve) -> None:
    first = serve()
    ask(first, "built", "grpc")
    first.signal()
    assert first.wait() == 0
    second = serve()
    assert np.array_equal(ask(second, "built", "grpc"), 2 * X)
    assert "built by TensorRT" in first.log()
    assert "built by TensorRT" not in second.log()


def test_a_broken_plan_leaves_the_old_version_serving(serve: Serve, repository: Path) -> None:
    server = serve("--model-control-mode", "explicit", "--load-model", "*")
    (repository / "plan" / "2").mkdir()
    (repository / "plan" / "2" / "model.plan").write_bytes(b"no plan at all, but long enough for a header")
    with http.InferenceServerClient(server.http) as client:
        with pytest.raises(InferenceServerException, match="is no TensorRT plan: begins with 6e6f2070"):
            client.load_model("plan")
        assert client.is_model_ready("plan", "1")
    assert np.array_equal(ask(server, "plan", "grpc"), 2 * X)


# At a kernel that comes after those of the warm-up, which are fewer than 40.
LOSSES = {"illegal address": "run:scale:60:700", "hang": "run:scale:60:hang"}


@pytest.mark.parametrize("how", LOSSES)
def test_a_lost_gpu_ends_the_server_for_its_supervisor(serve: Serve, repository: Path, how: str) -> None:
    shutil.rmtree(repository / "built")
    server = serve("--gpu-loss-exit-s", "1", faults=LOSSES[how])
    assert is_ready(server)
    seen: list[str] = []
    for _ in range(400):
        try:
            ask(server, "plan", "grpc")
        except InferenceServerException as error:
            seen.append(f"{error.status()} {error.message()}")
            break
    assert seen, "the device was never lost"
    assert seen[0].startswith("StatusCode.UNAVAILABLE"), seen
    wait_until(
        lambda: server.process.poll() is not None or not is_ready(server), "it is not ready any more", 2
    )
    assert server.wait() == GPU_LOST
    assert "is lost" in server.log()


def test_check_says_what_is_wrong_with_a_plan(repository: Path) -> None:
    (repository / "plan" / "1" / "model.plan").write_bytes(b"garbage")
    done = subprocess.run(
        [sys.executable, "-m", "fastserve.cli", "check", "--json", str(repository)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    said = json.dumps(json.loads(done.stdout))
    assert "is no TensorRT plan: begins with 67617262" in said
    assert "is built into a plan at its first load on a GPU" in said
