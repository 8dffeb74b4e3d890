"""The parts of the server that need no engine: sockets, curl, banner, ready file, progress, the metrics port."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from fastserve.lifecycle import ModelState
from fastserve.server.banner import banner
from fastserve.server.example_request import curl
from fastserve.server.listeners import StartError, address_text, listen, listen_all
from fastserve.server.metrics_listener import MetricsListener
from fastserve.server.progress import ProgressLines
from fastserve.server.ready_file import ReadyFile

# --- listeners


def test_port_0_picks_one_and_the_address_says_which() -> None:
    (sock,) = listen("127.0.0.1", 0, "--http-port")
    with sock:
        host, port = address_text(sock).split(":")
        assert (host, int(port)) == ("127.0.0.1", sock.getsockname()[1])
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1


def test_a_port_in_use_is_one_line_that_says_what_to_do() -> None:
    (sock,) = listen("127.0.0.1", 0, "--http-port")
    with sock:
        port = sock.getsockname()[1]
        with pytest.raises(StartError) as caught:
            listen("127.0.0.1", port, "--grpc-port")
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use: choose another with --grpc-port or stop the process that has it"
    )


def test_a_port_is_free_again_at_once() -> None:
    (sock,) = listen("127.0.0.1", 0, "")
    port = sock.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):
        accepted, _ = sock.accept() if sock.getblocking() else _accept(sock)
        accepted.close()  # the server's side goes to TIME_WAIT
        sock.close()
    (again,) = listen("127.0.0.1", port, "")
    again.close()


def _accept(sock: socket.socket) -> Any:
    sock.setblocking(True)
    return sock.accept()


@pytest.mark.parametrize(
    ("host", "words"),
    [("no-such-host.invalid", "has no address"), ("203.0.113.7", "is not an address of this machine")],
)
def test_a_host_that_is_not_ours(host: str, words: str) -> None:
    with pytest.raises(StartError, match=words):
        listen(host, 0, "--http-port")


def test_all_or_none() -> None:
    (taken,) = listen("127.0.0.1", 0, "")
    (probe,) = listen("127.0.0.1", 0, "")
    free = probe.getsockname()[1]
    probe.close()
    with taken, pytest.raises(StartError, match="--grpc-port"):
        listen_all({"http": ("127.0.0.1", free), "grpc": ("127.0.0.1", taken.getsockname()[1])})
    (again,) = listen("127.0.0.1", free, "")  # was closed when the second one failed
    again.close()


def test_ipv6_and_ipv4_of_one_name_share_the_port() -> None:
    try:
        socket.getaddrinfo("localhost", 0)
    except socket.gaierror:
        pytest.skip("this machine does not know the name localhost (no /etc/hosts)")
    sockets = listen("localhost", 0, "")
    assert len({sock.getsockname()[1] for sock in sockets}) == 1
    for sock in sockets:
        sock.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_ipv6_addresses_have_brackets() -> None:
    (sock,) = listen("::1", 0, "")
    with sock:
        assert address_text(sock) == f"[::1]:{sock.getsockname()[1]}"
        socket.create_connection(("::1", sock.getsockname()[1]), timeout=5).close()


# --- the curl


def body_of(command: str) -> Any:
    arguments = shlex.split(command)
    return json.loads(arguments[arguments.index("-d") + 1])


def test_curl_has_zeros_of_the_models_shape(make_version: Any, make_tensor: Any) -> None:
    inputs = [
        make_tensor("a", "FP32", [-1, 2, 3]),
        make_tensor("b'c", "INT64", [-1, 1]),
        make_tensor("flag", "BOOL", [-1]),
        make_tensor("text", "BYTES", [-1]),
        make_tensor("extra", "FP32", [-1], optional=True),
    ]
    command = curl("127.0.0.1:8000", [make_version("x", 1, "FAILED"), make_version("m", 2, inputs=inputs)])
    assert "127.0.0.1:8000/v2/models/m/infer" in command
    assert body_of(command) == {
        "inputs": [
            {"name": "a", "shape": [1, 2, 3], "datatype": "FP32", "data": [0.0] * 6},
            {"name": "b'c", "shape": [1, 1], "datatype": "INT64", "data": [0]},
            {"name": "flag", "shape": [1], "datatype": "BOOL", "data": [False]},
            {"name": "text", "shape": [1], "datatype": "BYTES", "data": [""]},
        ]
    }


@pytest.mark.parametrize("shape", [[-1, 3, 224, 224], [-1, 1 << 40, 1 << 40]])
def test_curl_of_a_large_model_reads_metadata(make_version: Any, make_tensor: Any, shape: list[int]) -> None:
    version = make_version("m", 1, inputs=[make_tensor("image", "FP32", shape)])
    assert curl("h:1", [version]) == "curl -s h:1/v2/models/m"


def test_curl_without_json_for_the_dtype_or_without_models(make_version: Any, make_tensor: Any) -> None:
    half = make_version("m", 1, inputs=[make_tensor("x", "FP16", [-1])])
    assert curl("h:1", [half]) == "curl -s h:1/v2/models/m"
    assert curl("h:1", []) == "curl -s h:1/v2"


# --- banner


def test_banner_names_addresses_models_failures_and_the_curl(make_version: Any) -> None:
    addresses = {"http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001", "metrics": "127.0.0.1:8002"}
    statuses = [make_version("good", 3), make_version("bad", 1, "FAILED", reason="no such file")]
    states = [
        ModelState("bad", 1, "FAILED", "no such file"),
        ModelState("worse", None, "FAILED", "config.pbtxt:1: x"),
    ]
    text = banner("1.2.3", addresses, statuses, states)
    for part in (
        "fastserve 1.2.3",
        "http://127.0.0.1:8000",
        "127.0.0.1:8001",
        "http://127.0.0.1:8002/metrics",
        "good version 3 · identity · x FP32[-1,4] → y FP32[-1,4]",
        "bad version 1 failed: no such file",
        "worse failed: config.pbtxt:1: x",
        "curl -s 127.0.0.1:8000/v2/models/good/infer",
    ):
        assert part in text, part
    assert "\x1b" not in text
    assert "\x1b" in banner("1.2.3", addresses, statuses, states, color=True)
    assert "no model is ready" in banner("1.2.3", addresses, [], [])


def test_banner_with_tls(make_version: Any) -> None:
    addresses = {"http": "h:1", "grpc": "h:2", "metrics": "h:3"}
    options = "--cacert /tls/cert.pem "
    text = banner("1", addresses, [make_version("m", 1)], [], http_url="https://h:1", curl_options=options)
    assert "REST     https://h:1\n" in text
    assert "metrics  http://h:3/metrics" in text
    assert "curl -s --cacert /tls/cert.pem https://h:1/v2/models/m/infer -d" in text


def test_banner_names_the_gpus_in_use(make_version: Any) -> None:
    addresses = {"http": "h:1", "grpc": "h:2", "metrics": "h:3"}
    gpu: Any = {"device": 1, "name": "NVIDIA H200", "uuid": "GPU-aa"}
    text = banner("1", addresses, [make_version("m", 1)], [], gpus=[gpu])
    assert "  GPU      1 NVIDIA H200 GPU-aa\n" in text
    assert "GPU" not in banner("1", addresses, [make_version("m", 1)], [])


# --- ready file


def test_ready_file_is_there_only_while_ready(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("of an earlier run")
    file = ReadyFile(path)
    file.clear()
    assert not path.exists()
    file.write({"http": "127.0.0.1:1"})
    assert json.loads(path.read_text())["http"] == "127.0.0.1:1"
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_ready_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="--ready-file"):
        ReadyFile(tmp_path / "missing" / "ready.json").clear()


# --- progress


def test_progress_lines_are_few(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    lines = ProgressLines(lambda: clock[0])
    events = [
        (0.0, 0.1, "reading"),
        (0.5, 0.2, "compiling"),
        (1.1, 0.3, "compiling"),
        (9.0, 0.4, "warming"),
    ]
    with caplog.at_level("INFO"):
        for at, fraction, what in events:
            clock[0] = at
            lines("m", 1, fraction, what)
        lines("other", 1, 0.5, "reading")
    assert [r.getMessage() for r in caplog.records] == [
        "m version 1: compiling (30 %)",
        "m version 1: warming (40 %)",
    ]


# --- the metrics port


@pytest.mark.parametrize(
    ("request_text", "status", "body"),
    [
        ("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", 200, "up 1\n"),
        ("GET /metrics?name=a HTTP/1.1\r\n\r\n", 200, "up 1\n"),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", 200, ""),
        ("GET / HTTP/1.1\r\n\r\n", 404, '{"error": "Not Found"}'),
        ("POST /metrics HTTP/1.1\r\n\r\n", 405, '{"error": "use GET"}'),
        ("nonsense\r\n\r\n", 400, '{"error": "Bad Request"}'),
        ("GET /metrics HTTP/1.1\r\n" + "a: b\r\n" * 5000 + "\r\n", 400, '{"error": "Bad Request"}'),
    ],
    ids=["get", "query", "head", "path", "method", "nonsense", "long"],
)
async def test_metrics_port(request_text: str, status: int, body: str) -> None:
    listener = MetricsListener(lambda: [b"up", b" 1\n"], "text/plain")
    sockets = listen("127.0.0.1", 0, "")
    port = sockets[0].getsockname()[1]
    await listener.start(sockets)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_text.encode())
    async with asyncio.timeout(5):
        answer = (await reader.read()).decode()
    writer.close()
    await listener.close()
    head, _, content = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert content == body


async def test_a_failing_scrape_says_nothing_of_the_inside() -> None:
    def scrape() -> bytes:
        raise KeyError("secret")

    listener = MetricsListener(scrape, "text/plain")
    sockets = listen("127.0.0.1", 0, "")
    port = sockets[0].getsockname()[1]
    await listener.start(sockets)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await listener.close()
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
