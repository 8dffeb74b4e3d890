"""`fastserve serve --model-repository s3://...` against a real S3 server: what is uploaded gets served."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_server import RunningServer
from tests.support.s3_server import S3Server

CONFIG = b"""
backend: "identity"
max_batch_size: 4
input {name: "x" data_type: TYPE_FP32 dims: [2]}
output {name: "y" data_type: TYPE_FP32 dims: [2]}
"""
URL = f"s3://{S3Server.BUCKET}/models"
ASKED = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.5]}]}


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.put("models/echo/config.pbtxt", CONFIG)
        server.put("models/echo/1/weights.bin", b"one")
        yield server


def serve(folder: Path, *arguments: str) -> RunningServer:
    return RunningServer(URL, folder, "--repository-cache-dir", str(folder / "cache"), *arguments)  # type: ignore[arg-type]


def call(server: RunningServer, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{server.http}{path}", data=None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        text = response.read()
    answer: dict[str, Any] = json.loads(text) if text else {}
    return answer


def infer(server: RunningServer) -> str:
    """The version that answered."""
    answer = call(server, "/v2/models/echo/infer", ASKED)
    assert answer["outputs"][0]["data"] == [1.5, 2.5]
    return str(answer["model_version"])


def test_a_new_version_is_loaded_by_request_and_the_cache_serves_without_the_store(
    s3: S3Server, tmp_path: Path
) -> None:
    with serve(tmp_path, "--model-control-mode", "explicit", "--load-model", "echo") as server:
        assert infer(server) == "1"
        s3.put("models/echo/2/weights.bin", b"two")
        call(server, "/v2/repository/models/echo/load", {})
        assert infer(server) == "2"
        with pytest.raises(urllib.error.HTTPError, match=r"400|404"):
            call(server, "/v2/repository/models/nowhere/load", {})
        s3.kill()
        call(server, "/v2/repository/models/echo/load", {})  # what is in the cache
        assert infer(server) == "2"
        assert "verysecret" not in server.log()
    with serve(tmp_path) as server:  # and at start
        assert infer(server) == "2"
        assert "serving what is in the cache" in server.log()
    with pytest.raises(RuntimeError, match="cannot list s3://bucket/models"):
        serve(tmp_path, "--repository-offline-start=false")


def test_a_bad_version_leaves_the_old_one_serving(s3: S3Server, tmp_path: Path) -> None:
    s3.put(
        "models/echo/2/fastserve-manifest.json",
        b'{"files": {"weights.bin": {"size": 3, "sha256": "%s"}}}' % (b"0" * 64),
    )
    s3.put("models/echo/2/weights.bin", b"two")
    with serve(tmp_path, "--model-control-mode", "explicit", "--load-model", "echo") as server:
        with pytest.raises(urllib.error.HTTPError):
            call(server, "/v2/models/echo/infer", ASKED)
        assert "'echo/2/weights.bin' is corrupt: sha256 is" in server.log()
        s3.delete("models/echo/2/fastserve-manifest.json")
        call(server, "/v2/repository/models/echo/load", {})
        assert infer(server) == "2"
        s3.put("models/echo/3/fastserve-manifest.json", b"{")
        with pytest.raises(urllib.error.HTTPError) as refused:
            call(server, "/v2/repository/models/echo/load", {})
        assert "fastserve-manifest.json: is not JSON" in refused.value.read().decode()
        assert infer(server) == "2"


def test_an_onnx_model_of_s3_is_polled(s3: S3Server, tmp_path: Path) -> None:
    model = Path(__file__).parent.parent / "fixtures" / "models"
    onnx = next(model.rglob("*.onnx"))
    s3.put("models/net/1/model.onnx", onnx.read_bytes())
    arguments = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
    with serve(tmp_path, *arguments) as server:
        assert infer(server) == "1"
        call(server, "/v2/models/net/ready")
        s3.put("models/net/2/model.onnx", onnx.read_bytes())
        s3.put("models/echo/2/weights.bin", b"two")
        until = time.monotonic() + 60
        while time.monotonic() < until and infer(server) != "2":
            time.sleep(0.1)
        assert infer(server) == "2"
        while time.monotonic() < until and call(server, "/v2/models/net")["versions"] != ["2"]:
            time.sleep(0.1)
        assert call(server, "/v2/models/net")["versions"] == ["2"]
        assert os.listdir(tmp_path / "cache")
