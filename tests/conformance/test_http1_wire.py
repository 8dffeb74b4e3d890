"""REST on HTTP/1.1's corners, byte by byte: pipelining, chunks, bad framing, bodies over the limit."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from wire import Infer, Rest, Tensor, fp32, rest_body

INFER = "/v2/models/batch_fp32/infer"
GOOD = Infer("batch_fp32", (fp32("INPUT0", 2, 4),), id="good")


@pytest.fixture(scope="module")
def rest(server: Any) -> Iterator[Rest]:
    opened = Rest(server.http)
    yield opened
    opened.close()


def body(data: list[float], **extra: str) -> bytes:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": data}
    return json.dumps({"inputs": [tensor], **extra}).encode()


def served_still(rest: Rest) -> bool:
    status, answer = rest.infer(GOOD)
    return bool(status == 200 and answer["id"] == "good" and rest.is_same_connection)


class Raw:
    """Bytes as they are."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def is_closed(self) -> bool:
        """By the server, after whatever it still had to say."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def raw(server: Any) -> Iterator[Raw]:
    opened = Raw(server.http)
    yield opened
    opened.close()


def post(path: str, content: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def test_pipelined_requests_are_answered_in_order(raw: Raw) -> None:
    slow = post("/v2/models/slow/infer", body([9, 9, 9, 9], id="0"))
    health = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    raw.send(
        slow + post(INFER, body([1, 2, 3, 4], id="1")) + health + post(INFER, body([5, 6, 7, 8], id="2"))
    )
    answers = [raw.answer() for _ in range(4)]
    assert [status for status, _, _ in answers] == [200] * 4
    assert [json.loads(content).get("id") for _, _, content in answers] == ["0", "1", None, "2"]


def test_pipelined_cold_requests_do_not_wait_for_each_other(raw: Raw) -> None:
    """Routes of the Python layer: the answer to one begins the next, without any event of the socket."""
    started = time.monotonic()
    raw.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
    assert [raw.answer()[0] for _ in range(20)] == [200] * 20
    assert time.monotonic() - started < 4  # a tick is a second


def test_a_request_in_single_bytes(raw: Raw) -> None:
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(INFER, body([1, 2, 3, 4], id="slow")):
        raw.send(bytes([byte]))
    status, _, content = raw.answer()
    assert (status, json.loads(content)["id"]) == (200, "slow")


def test_a_client_that_only_half_closes_gets_the_answers_of_cold_routes(raw: Raw) -> None:
    raw.send(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\nGET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    raw.socket.shutdown(socket.SHUT_WR)
    assert [raw.answer()[0] for _ in range(2)] == [200, 200]
    assert raw.is_closed()


def test_a_half_closed_client_gets_the_answer_of_what_runs(raw: Raw, server: Any) -> None:
    def in_flight() -> float:
        return sum(v for k, v in server.scrape().items() if "nv_inference_pending" in k and '"slow"' in k)

    raw.send(post("/v2/models/slow/infer", body([1, 2, 3, 4], id="runs")))
    time.sleep(0.1)  # `slow` is idle and starts at once; it takes 0.4 s
    assert in_flight() == 0
    raw.socket.shutdown(socket.SHUT_WR)
    status, _, content = raw.answer()
    assert (status, json.loads(content)["id"]) == (200, "runs")


def test_a_chunked_body(raw: Raw) -> None:
    text = body([1, 2, 3, 4], id="chunked")
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (text[:10], text[10:11], text[11:]))
    raw.send(
        f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        + pieces
        + b"0\r\n\r\n"
    )
    status, _, content = raw.answer()
    assert (status, json.loads(content)["id"]) == (200, "chunked")


def test_expect_continue(raw: Raw) -> None:
    text = body([1, 2, 3, 4])
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(text)}\r\nexpect: 100-continue\r\n\r\n"
    raw.send(head.encode())
    assert raw.answer()[0] == 100
    raw.send(text)
    assert raw.answer()[0] == 200


def test_connection_close_and_http_1_0(server: Any) -> None:
    for text in (
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        b"GET /v2/health/live HTTP/1.0\r\n\r\n",
    ):
        opened = Raw(server.http)
        opened.send(text)
        assert opened.answer()[0] == 200
        assert opened.is_closed()
        opened.close()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: -3\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
    ],
    ids=[
        "length and chunks",
        "negative length",
        "two lengths",
        "nonsense",
        "header",
        "long line",
        "many headers",
    ],
)
def test_bad_framing_is_answered_and_ends_the_connection(raw: Raw, rest: Rest, head: bytes) -> None:
    raw.send(head)
    status, _, _ = raw.answer()
    assert 400 <= status < 500
    assert raw.is_closed()
    assert served_still(rest)


def test_a_body_over_the_limit(raw: Raw, rest: Rest) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {5 << 20}\r\n\r\n"
    raw.send(head.encode())  # refused before the body is sent
    status, _, content = raw.answer()
    assert status == 413, content
    assert "error" in json.loads(content)
    assert served_still(rest)


def test_a_chunked_body_over_the_limit(raw: Raw, rest: Rest) -> None:
    raw.send(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b"a" * (1 << 20))
    try:
        for _ in range(6):
            raw.send(chunk)
    except OSError:
        pass  # closed while we were sending
    try:
        status = raw.answer()[0]
    except (OSError, IndexError):
        status = None  # what we sent meanwhile made the kernel reset the connection before we could read
    assert status in (413, None)
    assert raw.is_closed()
    assert served_still(rest)


def test_a_body_just_under_the_limit(rest: Rest) -> None:
    request = Infer("any_fp32", (Tensor("INPUT0", "FP32", (1023, 1024), bytes(1023 * 1024 * 4)),))
    header, data = rest_body(request)
    status, _, content = rest.ask(
        "POST",
        "/v2/models/any_fp32/infer",
        header + data,
        {"Inference-Header-Content-Length": str(len(header))},
    )
    assert status == 200, content[:200]
    assert served_still(rest)
