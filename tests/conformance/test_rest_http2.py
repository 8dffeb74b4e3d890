"""REST over HTTP/2 with prior knowledge: curl, nghttp, and frames by hand."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import numpy as np
import pytest
from wire import Infer, Rest, Tensor, fp32, rest_body

INFER = "/v2/models/batch_fp32/infer"
MAX_BYTES = 4 << 20  # the server's, conftest.py
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def body(**extra: Any) -> bytes:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -3, 4]}
    return json.dumps({"inputs": [tensor], **extra}).encode()


# --- other people's clients


def test_curl(server: Any, tmp_path: Path) -> None:
    x = np.arange(300_000, dtype=np.float32)
    header, data = rest_body(Infer("any_fp32", (Tensor("INPUT0", "FP32", (3, 100_000), x.tobytes()),)))
    (tmp_path / "body").write_bytes(header + data)
    done = subprocess.run(
        [
            *("curl", "-sS", "--http2-prior-knowledge", "-w", "%{stderr}%{http_version} %{http_code}"),
            *("-H", f"Inference-Header-Content-Length: {len(header)}"),
            *("--data-binary", f"@{tmp_path / 'body'}", f"http://{server.http}/v2/models/any_fp32/infer"),
        ],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stderr == b"2 200"
    (output,) = json.loads(done.stdout)["outputs"]
    assert output["data"] == x.tolist()


@pytest.mark.skipif(shutil.which("nghttp") is None, reason="nghttp2-client is not installed")
def test_nghttp(server: Any, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(body(id="n"))
    done = subprocess.run(
        ["nghttp", "-m", "30", "-d", str(tmp_path / "body"), f"http://{server.http}{INFER}"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.count(b'"id":"n"') == 30


# --- frames


class Http2:
    """One connection by h2; `send` and `until` do the socket's part."""

    def __init__(self, address: str, **settings: int) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: list[Any] = []
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, method: str, path: str, content: bytes = b"", end: bool = True, **headers: str) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x")]
        head += [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.h2.send_headers(stream, head, end_stream=end and not content)
        while content and not self.over(stream):
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self.flush()
                self.read()
                continue
            piece, content = content[:room], content[room:]
            self.h2.send_data(stream, piece, end_stream=end and not content)
        self.flush()
        return stream

    def over(self, stream: int) -> bool:
        """The server answered or reset it: it wants no more of it (h2 says a window of 0 then)."""
        kinds = (h2.events.StreamEnded, h2.events.StreamReset)
        return any(isinstance(event, kinds) and event.stream_id == stream for event in self.events)

    def read(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        with contextlib.suppress(OSError):  # closed by the server behind what we just read
            self.flush()

    def until(self, kind: Any, stream: int | None = None) -> Any:
        while True:
            for event in self.events:
                if isinstance(event, kind) and (stream is None or event.stream_id == stream):
                    return event
            self.read()

    def answer(self, stream: int) -> tuple[int, dict[str, str], bytes]:
        self.until(h2.events.StreamEnded, stream)
        head = dict(self.until(h2.events.ResponseReceived, stream).headers)
        data = [
            e.data for e in self.events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream
        ]
        return int(head[":status"]), head, b"".join(data)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def http2(server: Any) -> Iterator[Http2]:
    opened = Http2(server.http)
    yield opened
    opened.close()


def served_still(http2: Http2) -> bool:
    return http2.answer(http2.request("POST", INFER, body()))[0] == 200


def test_streams_are_answered_as_they_finish(http2: Http2) -> None:
    slow = http2.request("POST", "/v2/models/slow/infer", body(id="slow"))
    fast = http2.request("POST", INFER, body(id="fast"))
    health = http2.request("GET", "/v2/health/live")
    assert json.loads(http2.answer(fast)[2])["id"] == "fast"
    assert json.loads(http2.answer(health)[2]) == {"live": True}
    assert not any(isinstance(e, h2.events.StreamEnded) and e.stream_id == slow for e in http2.events)
    assert json.loads(http2.answer(slow)[2])["id"] == "slow"


def test_binary_both_ways(http2: Http2) -> None:
    x = np.arange(200_000, dtype=np.float32)
    request = Infer(
        "any_fp32",
        (Tensor("INPUT0", "FP32", (2, 100_000), x.tobytes()),),
        parameters={"binary_data_output": True},
    )
    header, data = rest_body(request)
    stream = http2.request(
        "POST", "/v2/models/any_fp32/infer", header + data, inference_header_content_length=str(len(header))
    )
    status, head, content = http2.answer(stream)
    assert (status, head["content-type"]) == (200, "application/octet-stream")
    length = int(head["inference-header-content-length"])
    assert content[length:] == x.tobytes()
    assert int(head["content-length"]) == len(content)


def test_a_raw_request(http2: Http2) -> None:
    x = np.arange(4, dtype=np.float32)
    stream = http2.request("POST", INFER, x.tobytes(), inference_header_content_length="0")
    status, head, content = http2.answer(stream)
    assert (status, content[int(head["inference-header-content-length"]) :]) == (200, x.tobytes())


@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
@pytest.mark.parametrize("declared", [True, False])
def test_the_limit_of_bodies(http2: Http2, extra: int, status: int, declared: bool) -> None:
    content = body() + b" " * (MAX_BYTES - len(body()) + extra)
    headers = {"content_length": str(len(content))} if declared else {}
    try:
        stream = http2.request("POST", INFER, content, **headers)
    except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
        stream = 1  # refused before all of it was sent
    found, _, answer = http2.answer(stream)
    assert found == status, answer[:200]
    assert served_still(http2)


@pytest.mark.parametrize(("count", "good"), [(64 - 4, True), (64 - 3, False)])
def test_the_limit_of_headers(http2: Http2, count: int, good: bool) -> None:
    http2.h2.remote_settings.max_header_list_size = 1 << 20
    stream = http2.request("GET", "/v2", **{f"x_{i}": "v" for i in range(count)})
    if good:
        assert http2.answer(stream)[0] == 200
    else:
        ended = http2.until(h2.events.ConnectionTerminated)
        assert ended.error_code == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def test_a_reset_stream_is_cancelled_and_others_go_on(server: Any, http2: Http2) -> None:
    rest = Rest(server.http)

    def cancelled() -> float:
        found = server.scrape().items()
        return sum(v for k, v in found if "request_failure" in k and '"tight"' in k and "CANCELED" in k)

    before = cancelled()
    running = http2.request("POST", "/v2/models/tight/infer", body())
    waiting = http2.request("POST", "/v2/models/tight/infer", body())
    assert served_still(http2)  # behind it on the same connection: it is in the queue now
    http2.h2.reset_stream(waiting, h2.errors.ErrorCodes.CANCEL)
    http2.flush()
    until = time.monotonic() + 10
    while cancelled() != before + 1:
        assert time.monotonic() < until
    assert http2.answer(running)[0] == 200
    assert served_still(http2)
    rest.close()


@pytest.mark.parametrize("path", ["", "v2", "*", "http://x/v2"])
def test_paths_that_are_none(http2: Http2, path: str) -> None:
    http2.h2.config.validate_outbound_headers = False
    stream = http2.request("GET", path)
    while True:
        answered = [e for e in http2.events if getattr(e, "stream_id", None) == stream]
        if any(isinstance(e, h2.events.StreamReset) for e in answered):
            return  # a PROTOCOL_ERROR of the stream (RFC 9113 section 8.3.1)
        if any(isinstance(e, h2.events.StreamEnded) for e in answered):
            assert http2.answer(stream)[0] == 400
            return
        http2.read()


def test_trailers_of_a_request_are_dropped(http2: Http2) -> None:
    stream = http2.request("POST", INFER, body(), end=False)
    http2.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    http2.flush()
    assert http2.answer(stream)[0] == 200


def test_flow_control_of_the_answer(server: Any) -> None:
    """The client's window is closed: not a byte beyond it, and all of it once it opens."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
        head = [(":method", "GET"), (":path", "/openapi.json"), (":scheme", "http"), (":authority", "x")]
        connection.send_headers(1, head, end_stream=True)
        raw.sendall(connection.data_to_send())
        received = 0
        opened = 100
        ended = False
        while not ended:
            for event in connection.receive_data(raw.recv(65536)):
                if isinstance(event, h2.events.DataReceived):
                    received += len(event.data)
                    assert received <= opened
                    if received == opened:
                        opened += 20_000
                        connection.increment_flow_control_window(20_000, 1)
                ended = ended or isinstance(event, h2.events.StreamEnded)
            raw.sendall(connection.data_to_send())
        assert received > 100


@pytest.mark.parametrize("cut", [1, 3, 10, 23])
def test_a_preface_in_two_pieces(server: Any, cut: int) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(PREFACE[:cut])
        raw.sendall(PREFACE[cut:] + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        assert raw.recv(9)[3] == 4  # SETTINGS


def test_noise_behind_the_preface_ends_the_connection(server: Any) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(PREFACE + b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" + b"x" * 100)
        answer = b""
        while piece := raw.recv(4096):
            answer += piece
    assert not answer.startswith(b"HTTP/")
    assert b"\x07\x00\x00\x00\x00\x00" in answer  # GOAWAY


def test_http1_on_the_same_port(server: Any) -> None:
    rest = Rest(server.http)
    status, _ = rest.infer(Infer("batch_fp32", (fp32("INPUT0", 2, 4),)))
    assert status == 200
    rest.close()
