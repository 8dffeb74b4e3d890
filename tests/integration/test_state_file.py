"""--state-file: what clients changed is there again after a restart."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from explicit_server import Explicit
from model_repository import identity
from running_server import command
from tritonclient.grpc import service_pb2

EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "at_start")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    for name in ("at_start", "later", "tuned", "gone", "filed"):
        identity(root, name, [("FP32", [4])], max_batch=8, versions=(1, 2))
    return root


def configured(max_batch: int) -> str:
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    sides = {"input": [{"name": "INPUT0", **tensor}], "output": [{"name": "OUTPUT0", **tensor}]}
    return json.dumps({"backend": "identity", "max_batch_size": max_batch, **sides})


def load(explicit: Explicit, model: str, config: str = "", files: dict[str, bytes] | None = None) -> None:
    parameters = {
        f"file:{k}": service_pb2.ModelRepositoryParameter(bytes_param=v) for k, v in (files or {}).items()
    }
    if config:
        parameters["config"] = service_pb2.ModelRepositoryParameter(string_param=config)
    answer = explicit.rpc("RepositoryModelLoad", model_name=model, parameters=parameters)
    assert isinstance(answer, service_pb2.RepositoryModelLoadResponse), answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_models_and_labels_are_there_again(start: Any, repository: Path, tmp_path: Path, number: int) -> None:
    arguments = (*EXPLICIT, "--state-file", str(tmp_path / "state.json"))
    server = start(repository, *arguments)
    first = Explicit(server, repository)
    load(first, "later")
    load(first, "gone")
    load(first, "tuned", configured(3))
    load(first, "filed", configured(4), {"5/nothing": b""})
    first.unload("at_start")
    path = "/v2/repository/models/later/labels"
    assert first.rest.ask("PUT", path, b'{"labels": {"stable": 2}}')[0] == 200
    while (
        '"stable"' not in (tmp_path / "state.json").read_text()
    ):  # labels are written right after the answer
        time.sleep(0.01)
    server.signal(number)
    server.wait()
    (repository / "gone").rename(tmp_path / "gone")
    server = start(repository, *arguments)
    again = Explicit(server, repository)
    ready = {name for name in ("at_start", "later", "tuned", "gone", "filed") if again.ready(name)}
    assert ready == {"later", "tuned"}
    assert again.rpc("ModelConfig", name="tuned").config.max_batch_size == 3
    assert again.ready("later", "stable")
    messages = [record["message"] for record in server.log_records()]
    assert "gone was loaded before the restart, and no model repository has it now" in messages
    assert "filed was loaded from files of a request, which are not kept: load it again" in messages
    again.load("tuned")  # the repository's own again, and after one more restart
    again.load("at_start")
    server.signal()
    assert server.wait() == 0
    last = Explicit(start(repository, *arguments), repository)
    assert last.rpc("ModelConfig", name="tuned").config.max_batch_size == 8
    assert last.ready("at_start")


def test_without_it_nothing_is_kept(start: Any, repository: Path) -> None:
    server = start(repository, *EXPLICIT)
    Explicit(server, repository).load("later")
    server.signal()
    assert server.wait() == 0
    again = Explicit(start(repository, *EXPLICIT), repository)
    assert (again.ready("at_start"), again.ready("later")) == (True, False)


def test_one_file_is_for_one_server(start: Any, repository: Path, tmp_path: Path) -> None:
    arguments = ("--state-file", str(tmp_path / "state.json"))
    server = start(repository, *arguments)
    flags = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    done = subprocess.run(
        command("serve", "--model-repository", str(repository), *flags, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"is in use by another server (pid {server.process.pid})" in line


def test_a_file_that_is_broken_stops_the_start(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    arguments = ("--model-repository", str(repository), "--state-file", str(tmp_path / "state.json"))
    done = subprocess.run(command("serve", *arguments), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "put it right, or move it away" in line
