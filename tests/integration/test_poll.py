"""`--model-control-mode poll` with a real server and a client that never stops asking: nothing half-written is loaded, no request
fails, whatever happens to the folders."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import tritonclient.http as http
from running_server import RunningServer

POLL_S = "0.1"
SOON_S = 30.0


def write_scale(path: Path, factor: float) -> Path:
    """y = factor * x, [-1, 4]."""
    from onnx import TensorProto, helper

    scale = helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])
    node = helper.make_node("Mul", ["x", "k"], ["y"])
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    graph = helper.make_graph([node], "scale", shapes[:1], shapes[1:], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


class Asking:
    """Asks model `m` on and on; `answers`: (version, factor) in the order in which they were first seen."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.answers: list[tuple[str, float]] = []
        self.failures: list[str] = []
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def until(self, version: str, factor: float) -> None:
        soon(
            lambda: self.answers[-1:] == [(version, factor)],
            lambda: f"{self.answers}, {self.server.log()[-3000:]}",
        )

    def _run(self) -> None:
        client = http.InferenceServerClient(self.server.http)
        given = http.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        while not self._stop.is_set():
            try:
                result = client.infer("m", [given])
                answer = (result.get_response()["model_version"], float(result.as_numpy("y")[0, 0]))
                if self.answers[-1:] != [answer]:
                    self.answers.append(answer)
                self.count += 1
            except Exception as error:
                self.failures.append(str(error))
            time.sleep(0.002)


def soon(condition: Callable[[], bool], why: Callable[[], str]) -> None:
    until = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < until, why()
        time.sleep(0.02)


def index(server: RunningServer) -> dict[str, tuple[str, str]]:
    """ "m/1" -> state and reason, as tritonclient reads it."""
    listed = http.InferenceServerClient(server.http).get_model_repository_index()
    return {
        f"{entry['name']}/{entry['version']}": (entry["state"], entry.get("reason", ""))
        for entry in listed
        if entry.get("version")
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_scale(tmp_path / "models/m/1/model.onnx", 1)
    return tmp_path / "models"


@pytest.fixture
def server(start: Any, root: Path) -> RunningServer:
    running: RunningServer = start(root, "--model-control-mode", "poll", "--repository-poll-secs", POLL_S)
    return running


@pytest.fixture
def asking(server: RunningServer) -> Iterator[Asking]:
    with Asking(server) as asking:
        asking.until("1", 1)
        yield asking
    assert asking.failures == []
    assert asking.count > 10


def test_a_version_that_is_copied_slowly(asking: Asking, root: Path, tmp_path: Path) -> None:
    content = write_scale(tmp_path / "two.onnx", 2).read_bytes()
    (root / "m/2").mkdir()
    with (root / "m/2/model.onnx").open("wb") as file:
        for at in range(0, len(content), len(content) // 8):
            file.write(content[at : at + len(content) // 8])
            file.flush()
            time.sleep(0.4)  # the server would take what stays the same for a second
            assert asking.answers == [("1", 1)]
    asking.until("2", 2)
    assert asking.answers == [("1", 1), ("2", 2)]
    assert "FAILED" not in asking.server.log()
    assert index(asking.server)["m/2"] == ("READY", "")


def test_content_that_is_replaced_in_place(asking: Asking, root: Path) -> None:
    write_scale(root / "m/1/model.onnx", 5)
    asking.until("1", 5)
    assert asking.answers == [("1", 1), ("1", 5)]


def test_a_manifest_holds_back_and_lets_go(asking: Asking, root: Path, tmp_path: Path) -> None:
    content = write_scale(tmp_path / "two.onnx", 2).read_bytes()
    (root / "m/2").mkdir()
    listed = {"files": {"model.onnx": {"size": len(content)}}}
    (root / "m/2/fastserve-manifest.json").write_text(json.dumps(listed))
    (root / "m/2/model.onnx").write_bytes(content[:-3])
    time.sleep(2.5)  # longer than what settles
    assert asking.answers == [("1", 1)]
    (root / "m/2/model.onnx").write_bytes(content)
    asking.until("2", 2)


def test_a_version_that_is_removed(asking: Asking, root: Path) -> None:
    write_scale(root / "m/2/model.onnx", 2)
    asking.until("2", 2)
    shutil.rmtree(root / "m/2")
    asking.until("1", 1)
    soon(
        lambda: index(asking.server).get("m/2", ("UNAVAILABLE",))[0] != "READY",
        lambda: str(index(asking.server)),
    )


def test_a_corrupt_version_keeps_the_old_one(asking: Asking, root: Path) -> None:
    (root / "m/2").mkdir()
    (root / "m/2/model.onnx").write_text("this is no ONNX file")
    soon(lambda: "m/2" in index(asking.server), lambda: str(index(asking.server)))
    soon(lambda: index(asking.server)["m/2"][1] != "", lambda: str(index(asking.server)))
    assert index(asking.server)["m/1"] == ("READY", "")
    write_scale(root / "m/2/model.onnx", 2)  # and when it is repaired
    asking.until("2", 2)


def test_a_broken_configuration_keeps_what_serves(asking: Asking, root: Path) -> None:
    (root / "m/config.pbtxt").write_text("max_batch_sise: 8")
    soon(lambda: "max_batch_sise" in asking.server.log(), asking.server.log)
    (root / "m/config.pbtxt").write_text("max_batch_size: 8")
    time.sleep(3)
    assert asking.answers == [("1", 1)]


def test_the_repository_vanishes_and_comes_back(asking: Asking, root: Path) -> None:
    root.rename(root.with_name("away"))
    gauge = f'fastserve_repository_lost{{repository="{root}"}}'
    soon(lambda: asking.server.scrape()[gauge] == 1, asking.server.log)
    time.sleep(2.5)
    root.with_name("away").rename(root)
    soon(lambda: asking.server.scrape()[gauge] == 0, asking.server.log)
    write_scale(root / "m/2/model.onnx", 2)
    asking.until("2", 2)
    assert asking.answers == [("1", 1), ("2", 2)]
    warnings = [r for r in asking.server.log_records() if "serve on as they are" in r["message"]]
    assert len(warnings) == 1


def test_models_come_and_go(server: RunningServer, root: Path) -> None:
    write_scale(root / "new/1/model.onnx", 1)
    soon(lambda: index(server).get("new/1") == ("READY", ""), lambda: str(index(server)))
    shutil.rmtree(root / "new")
    soon(lambda: index(server).get("new/1", ("UNAVAILABLE",))[0] != "READY", lambda: str(index(server)))
    assert index(server)["m/1"] == ("READY", "")


def test_swaps_one_after_another(asking: Asking, root: Path, tmp_path: Path) -> None:
    for number in range(2, 7):
        folder = tmp_path / f"staged{number}"
        write_scale(folder / "model.onnx", number)
        (folder / ".ready").touch()
        folder.rename(root / "m" / str(number))
        asking.until(str(number), number)
    assert asking.answers == [(str(number), number) for number in range(1, 7)]


def test_loads_by_request_are_refused(server: RunningServer) -> None:
    with pytest.raises(http.InferenceServerException, match="polling is enabled"):
        http.InferenceServerClient(server.http).load_model("m")


# --- files that list models


def test_a_list_of_tensorflow_serving(start: Any, root: Path, tmp_path: Path) -> None:
    def write(*versions: int) -> None:
        policy = " ".join(f"versions: {version}" for version in versions)
        config = f'name: "m" base_path: "{root}/m" model_platform: "tensorflow"'
        text = f"model_config_list {{ config {{ {config} model_version_policy {{ specific {{ {policy} }} }} }} }}"
        (tmp_path / "models.config").write_text(text)

    (root / "m/1").rename(root / "m/0001")
    write_scale(root / "m/0002/net.onnx", 2)
    write(1)
    (tmp_path / "none").mkdir()
    flags = ("--model-config-file", str(tmp_path / "models.config"))
    server = start(tmp_path / "none", *flags, "--model-config-file-poll-wait-seconds", "0.2")
    with Asking(server) as asking:
        asking.until("1", 1)
        write(2)
        asking.until("2", 2)
        (tmp_path / "models.config").write_text("model_config_list { config { name")
        soon(lambda: "going on with what it said before" in server.log(), server.log)
    assert asking.failures == []
    assert asking.answers == [("1", 1), ("2", 2)]


def test_a_config_of_openvino_model_server(start: Any, root: Path, tmp_path: Path) -> None:
    write_scale(tmp_path / "single.onnx", 3)
    models = [
        {"config": {"name": "m", "base_path": str(tmp_path / "single.onnx"), "nireq": 2,
                    "plugin_config": {"NUM_STREAMS": "1"}}},
        {"config": {"name": "r", "base_path": str(root / "m"), "shape": "(1,3,8,8)"}},
    ]  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({"model_config_list": models}, indent=1))
    (tmp_path / "none").mkdir()
    server = start(tmp_path / "none", "--ovms-config-file", str(tmp_path / "config.json"))
    with Asking(server) as asking:
        asking.until("1", 3)
    assert 'shape: got \\"(1,3,8,8)\\", which is not supported' in server.log()


# --- repositories that are not to be written to

PYTHON_MODEL = """
import beside
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x * beside.FACTOR)]) for x in inputs]
"""


def contents(root: Path) -> list[tuple[str, int]]:
    return [(str(path), path.stat().st_mtime_ns) for path in [root, *sorted(root.rglob("*"))]]


@pytest.fixture
def read_only(root: Path, tmp_path: Path) -> Iterator[Path]:
    """The repository with a Python model as well, mounted read-only where that may be done."""
    write_scale(root / "m/1/model.onnx", 1)
    (root / "py/1").mkdir(parents=True)
    (root / "py/1/model.py").write_text(PYTHON_MODEL)
    (root / "py/1/beside.py").write_text("FACTOR = 3\n")
    tensors = 'input { name: "x" data_type: TYPE_FP32 dims: [ 1, 4 ] } output { name: "y" data_type: TYPE_FP32 dims: [ 1, 4 ] }'
    (root / "py/config.pbtxt").write_text(f'backend: "python" {tensors}')
    shown = tmp_path / "shown"
    shown.mkdir()
    mounted = subprocess.run(["mount", "--bind", str(root), str(shown)], capture_output=True, check=False)
    if mounted.returncode:
        yield root
        return
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(shown)], check=True)
        yield shown
    finally:
        subprocess.run(["umount", "-l", str(shown)], check=True)


def test_nothing_is_written_into_a_repository(start: Any, root: Path, read_only: Path) -> None:
    before = contents(root)
    flags = ("--model-control-mode", "poll", "--repository-poll-secs", POLL_S, "--allow-python-models")
    server = start(read_only, *flags)
    client = http.InferenceServerClient(server.http)
    given = http.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.ones((1, 4), np.float32))
    assert client.infer("m", [given]).as_numpy("y").tolist() == [[1] * 4]
    assert client.infer("py", [given]).as_numpy("y").tolist() == [[3] * 4]
    polls = server.scrape()["fastserve_repository_polls_total"]
    soon(lambda: server.scrape()["fastserve_repository_polls_total"] >= polls + 3, server.log)
    assert server.scrape()["fastserve_repository_changes_total"] == 0
    assert contents(root) == before
