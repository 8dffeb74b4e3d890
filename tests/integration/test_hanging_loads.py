"""Programs that hang while they load: the load ends at its time limit and says where it hung, what served serves on, and others
get its place."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from process_figures import wait_until
from running_server import RunningServer

LIMIT_S = 6  # a program starts in 1 s, on a busy machine in 3
SOON_S = 60.0

GOOD = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""

HANGS = """
import ctypes, signal, time

class TritonPythonModel:
    def initialize(self, args):
        {how}
    def execute(self, requests):
        return []
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""

# What native code does that takes no notice of anything: signals that it could handle are ignored.
DEAF = "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGABRT, signal.SIGTERM)]; ctypes.CDLL(None).sleep(1000)"
WAYS = {"sleeps": "time.sleep(1000)", "spins": "while True: pass", "deaf_in_native_code": DEAF}


def put(root: Path, name: str, version: int, text: str) -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (root / name / "config.pbtxt").write_text(CONFIG)
    (folder / "model.py").write_text(textwrap.dedent(text))
    (folder / ".ready").touch()


def row(server: RunningServer, name: str, version: int) -> tuple[str, str]:
    with http.InferenceServerClient(server.http) as client:
        for entry in client.get_model_repository_index():
            if entry["name"] == name and entry.get("version") == str(version):
                return entry["state"], entry.get("reason", "")
    return "", ""


def answers(server: RunningServer, name: str) -> str:
    """The version that answered."""
    given = grpc.InferInput("x", [1, 4], "FP32")
    given.set_data_from_numpy(np.ones((1, 4), np.float32))
    with grpc.InferenceServerClient(server.grpc) as client:
        return str(client.infer(name, [given]).get_response().model_version)


def children(pid: int) -> int:
    tasks = os.listdir(f"/proc/{pid}/task")
    return sum(len(Path(f"/proc/{pid}/task/{task}/children").read_text().split()) for task in tasks)


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_hangs_is_ended_and_told_of(start: Any, tmp_path: Path, way: str) -> None:
    root = tmp_path / "models"
    put(root, "program", 1, GOOD)
    flags = ("--model-control-mode", "poll", "--repository-poll-secs", "0.2", "--allow-python-models")
    limits = ("--load-timeout-secs", str(LIMIT_S), "--load-retries", "0", "--loader-threads", "1")
    server = start(root, *flags, *limits)
    before = children(server.process.pid)
    put(root, "program", 2, HANGS.format(how=WAYS[way]))
    put(root, "waits_behind_it", 1, GOOD)
    wait_until(lambda: row(server, "program", 2)[0] == "UNAVAILABLE", "it is given up", SOON_S)
    reason = row(server, "program", 2)[1]
    assert reason.startswith(f"loading took longer than {LIMIT_S} s (--load-timeout-secs)"), reason
    assert answers(server, "program") == "1"
    wait_until(lambda: row(server, "waits_behind_it", 1)[0] == "READY", "the place is free", SOON_S)
    wait_until(lambda: server.scrape()["fastserve_hung_loads"] == 0, "the load has ended", SOON_S)
    assert "still runs" not in row(server, "program", 2)[1]
    wait_until(lambda: children(server.process.pid) == before + 1, "its process is gone", SOON_S)
    figures = server.scrape()
    assert figures["fastserve_model_load_timeouts_total"] == 1
    failed = 'fastserve_model_load_failures_total{model="program",version="2",reason="deadline_exceeded"}'
    assert figures[failed] == 1
    if way != "deaf_in_native_code":
        assert "model.py" in server.log(), "where it hangs"
        assert "in initialize" in server.log()
    assert answers(server, "program") == "1"
