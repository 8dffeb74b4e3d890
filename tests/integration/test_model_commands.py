"""`fastserve models | load | unload | reload` against a real server, over REST and gRPC."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from explicit_server import Explicit, assert_answers, put_mlp, scaled_mlp
from model_repository import identity
from running_server import RunningServer, command


@pytest.fixture
def explicit(start: Any, tmp_path: Path) -> Explicit:
    repository = tmp_path / "models"
    identity(repository, "echo", [("FP32", [4])], max_batch=8)
    identity(repository, "later", [("FP32", [4])], max_batch=8)
    server = start(repository, "--model-control-mode", "explicit", "--load-model", "echo")
    return Explicit(server, repository)


def run(
    server: RunningServer, name: str, *arguments: str, over: str = "http"
) -> subprocess.CompletedProcess[str]:
    url = {"http": f"http://{server.http}", "grpc": f"grpc://{server.grpc}"}[over]
    return subprocess.run(
        command(name, *arguments, "--url", url), capture_output=True, text=True, timeout=60, check=False
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_load_and_unload(explicit: Explicit, over: str) -> None:
    server = explicit.server
    assert re.fullmatch(
        r"later version 1 is ready \(\d+\.\d s\)\n", succeeded(run(server, "load", "later", over=over))
    )
    assert explicit.ready("later")
    assert succeeded(run(server, "unload", "later", over=over)) == "later is unloaded\n"
    assert succeeded(run(server, "unload", "later", over=over)) == "later was not loaded\n"
    assert "failed to load 'no_such', failed to poll" in refused(run(server, "load", "no_such", over=over))
    (explicit.repository / "later" / "config.pbtxt").write_text("nonsense: 1")
    assert "unknown field 'nonsense'" in refused(run(server, "load", "later", over=over))


@pytest.mark.parametrize("over", ["http", "grpc"])
def test_a_load_with_a_configuration_and_files(explicit: Explicit, tmp_path: Path, over: str) -> None:
    (tmp_path / "config.pbtxt").write_text('backend: "openvino"\n')
    (tmp_path / "model.onnx").write_bytes(scaled_mlp(2.0))
    files = ("--config", str(tmp_path / "config.pbtxt"), "--file", f"3/model.onnx={tmp_path / 'model.onnx'}")
    assert succeeded(run(explicit.server, "load", "uploaded", *files, over=over)).startswith(
        "uploaded version 3 is"
    )
    assert_answers(explicit, "uploaded", scale=2.0)
    (tmp_path / "config.json").write_text('{"max_batchsize": 3}')
    said = refused(run(explicit.server, "load", "echo", "--config", str(tmp_path / "config.json"), over=over))
    assert "unknown field 'max_batchsize' (did you mean max_batch_size?)" in said


def test_models(explicit: Explicit) -> None:
    put_mlp(explicit, "broken").write_bytes(b"no")
    explicit.load("broken")
    rest = explicit.rest
    assert rest.ask("PUT", "/v2/repository/models/echo/labels", b'{"labels": {"stable": 1}}')[0] == 200
    table = succeeded(run(explicit.server, "models")).splitlines()
    assert table[0].startswith("MODEL")
    assert any(re.fullmatch(r"echo +1  READY .*stable", line) for line in table), table
    assert any(line.startswith("broken ") and "FAILED" in line for line in table)
    assert any(re.fullmatch(r"later +-", line) for line in table)
    rows = json.loads(succeeded(run(explicit.server, "models", "echo", "--json")))
    assert [(r["name"], r["version"], r["state"], r["labels"]) for r in rows] == [
        ("echo", "1", "READY", {"stable": 1})
    ]
    assert (rows[0]["requests"], rows[0]["instances"] >= 1) == (0, True)
    assert "the server has no model 'no_such'" in refused(run(explicit.server, "models", "no_such"))
    over_grpc = succeeded(run(explicit.server, "models", over="grpc")).splitlines()
    assert any(re.fullmatch(r"echo +1  READY +0", line) for line in over_grpc), over_grpc


def test_watch_on_a_terminal(explicit: Explicit) -> None:
    primary, secondary = pty.openpty()
    arguments = ("--watch", "--interval", "0.1", "--url", f"http://{explicit.server.http}")
    process = subprocess.Popen(command("models", *arguments), stdout=secondary, stderr=secondary)
    os.close(secondary)
    seen = b""
    until = time.monotonic() + 20
    while seen.count(b"1 ready") < 3 or b"/s" not in seen:
        assert time.monotonic() < until, seen
        seen += os.read(primary, 4096)
    process.send_signal(signal.SIGINT)
    while chunk := _read(primary):
        seen += chunk
    assert process.wait(20) == 0
    os.close(primary)
    assert b"\x1b[?1049h" in seen
    assert seen.rstrip().endswith(b"\x1b[?1049l")


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # the other end is closed
        return b""


def test_watch_for_programs(explicit: Explicit) -> None:
    arguments = ("--watch", "--interval", "0.1", "--json", "--url", f"http://{explicit.server.http}")
    with subprocess.Popen(command("models", *arguments), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "requests_per_second" not in looks[0][0]
    assert looks[1][0]["requests_per_second"] == 0.0


def test_reload(start: Any, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    identity(repository, "echo", [("FP32", [4])], max_batch=8)
    identity(repository, "goes", [("FP32", [4])])
    server = start(repository)
    assert succeeded(run(server, "reload")) == "nothing has changed\n"
    identity(repository, "new", [("FP32", [4])])
    (repository / "goes").rename(tmp_path / "goes")
    said = succeeded(run(server, "reload")).splitlines()
    assert "new version 1 is ready" in said
    assert [line for line in said if line.startswith("goes version 1 is ")] != []
    (repository / "new" / "config.pbtxt").write_text("nonsense: 1")
    done = run(server, "reload")
    assert done.returncode == 0  # it serves on
    assert "new version 1: " in done.stdout
    assert "unknown field 'nonsense'" in done.stdout
    identity(repository, "worse", [("FP32", [4])])
    (repository / "worse" / "config.pbtxt").write_text("nonsense: 1")
    done = run(server, "reload")
    assert done.returncode == 1
    assert "worse failed: " in done.stdout
    assert succeeded(run(server, "reload", "--pid", str(server.process.pid))) == ""
    repository.rename(tmp_path / "elsewhere")
    assert "503 Service Unavailable: nothing was reloaded: " in refused(run(server, "reload"))


def test_the_route_of_reload(start: Any, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    identity(repository, "echo", [("FP32", [4])], max_batch=8)
    explicit = Explicit(start(repository), repository)
    status, rows = explicit.rest.post("/v2/repository/reload", b"")
    assert (status, [row["name"] for row in rows]) == (200, ["echo"])
    identity(repository, "new", [("FP32", [4])])
    status, rows = explicit.rest.post("/v2/repository/reload", b"")
    assert (status, [row["name"] for row in rows]) == (201, ["echo", "new"])
    assert explicit.rest.ask("GET", "/v2/repository/reload")[0] == 405
