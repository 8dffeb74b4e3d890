"""Unix sockets with real clients, over both drivers, and what the application learns of its peer."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc
from model_repository import write_repository
from running_server import RunningServer


@pytest.fixture(scope="module", params=["1", "0"])
def unix_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("unix")
    sockets = [f"--{name}-unix-socket=unix:{folder / name}" for name in ("grpc", "http")]
    repository = write_repository(folder / "models")
    with RunningServer(
        repository, folder, "--io-threads", request.param, "--access-log", *sockets
    ) as running:
        yield running
        running.signal()
        assert running.wait() == 0, running.log()
        assert not (folder / "grpc").exists()
        assert not (folder / "http").exists()


def test_grpc_over_a_unix_socket(unix_server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(unix_server.addresses["grpc_unix"]) as client:
        assert client.is_server_ready()
        value = np.arange(4, dtype=np.float32).reshape(1, 4)
        tensor = tritonclient.grpc.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_data_from_numpy(value)
        assert (client.infer("batch_fp32", [tensor]).as_numpy("OUTPUT0") == value).all()


def test_rest_over_a_unix_socket(unix_server: RunningServer) -> None:
    path = unix_server.addresses["http_unix"].removeprefix("unix:")
    answer = subprocess.run(
        ["curl", "-sS", "--unix-socket", path, "http://localhost/v2"],
        check=True,
        capture_output=True,
        timeout=10,
    )
    assert json.loads(answer.stdout)["name"] == "fastserve"


def test_the_access_log_names_the_peer(unix_server: RunningServer) -> None:
    host, port = unix_server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        mine = "{}:{}".format(*client.getsockname())
        client.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while client.recv(65536):
            pass
    assert any(record.get("peer") == mine for record in unix_server.log_records())
