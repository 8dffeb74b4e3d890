"""Every limit of what a client may ask for: at limit - 1 and limit nothing is said of it, at limit + 1 it is refused with its
code and its words, and the next request is served. The list with defaults, codes and metrics: tools/limits.py.

Elsewhere: bodies over HTTP/2 (test_rest_http2.py), streams (http2/test_5_streams.py), the queue (test_load.py), TLS
(test_tls.py), time-outs (test_slow_clients.py).
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from http2_frames import (
    Code,
    Peer,
    Target,
    Type,
    block,
    continuation,
    data,
    frame,
    grpc_target,
    headers,
    literal,
    ping,
    priority,
    replaced,
    rest_target,
    rst_stream,
    settings,
    window_update,
)
from tritonclient.grpc import service_pb2
from wire import INFER, Infer, Refused, fp32, grpc_call, message

MAX_MESSAGE_BYTES = 4 << 20  # the server's, conftest.py
GOOD = Infer("batch_fp32", (fp32("INPUT0", 1, 4),), id="good")
INFER_TARGET = "/v2/models/batch_fp32/infer"


@dataclass(frozen=True)
class Said:
    """What the server said to a request; 0 and "" when it was served."""

    code: int = 0
    words: str = ""


@dataclass(frozen=True)
class Limit:
    most: int
    ask: Callable[[Any, int], Said]  # (server, n): a request that has n of it
    code: int  # HTTP's, gRPC's, or of RFC 9113 section 7
    words: str


def around(limits: dict[str, Limit]) -> Any:
    """`limit`, `count`: one below, at, one above."""
    return pytest.mark.parametrize(
        ("limit", "count"),
        [
            pytest.param(limit, limit.most + step, id=f"{name} {step:+d}" if step else f"{name} at")
            for name, limit in limits.items()
            for step in (-1, 0, 1)
        ],
    )


def check(limit: Limit, count: int, server: Any) -> None:
    said = limit.ask(server, count)
    if count > limit.most:
        assert (said.code, limit.words in said.words) == (limit.code, True), said
    else:
        assert limit.words not in said.words, said


# --- HTTP/1.1


def http1(server: Any, request: bytes) -> Said:
    """Sends bytes as they are and reads one answer."""
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        with contextlib.suppress(ConnectionError):  # refused while it was being sent
            opened.sendall(request)
        answer = opened.makefile("rb")
        status = int(answer.readline().split()[1])
        length = 0
        while line := answer.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        text = answer.read(length)
    return Said(0 if status == 200 else status, json.loads(text).get("error", "") if text else "")


LIVE = b"/v2/health/live"


def line_of(server: Any, count: int) -> Said:
    """A request line of `count` bytes."""
    query = b"?" + b"q" * (count - len(b"GET " + LIVE + b"? HTTP/1.1"))
    return http1(server, b"GET " + LIVE + query + b" HTTP/1.1\r\nhost: x\r\n\r\n")


def header_bytes_of(server: Any, count: int) -> Said:
    """Names, values and 4 for each line."""
    value = count - len("host") - len("x") - 4 - len("a") - 4
    return http1(server, b"GET " + LIVE + b" HTTP/1.1\r\nhost: x\r\na: " + b"v" * value + b"\r\n\r\n")


def headers_of(server: Any, count: int) -> Said:
    return http1(server, b"GET " + LIVE + b" HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * (count - 1) + b"\r\n")


def rest_json(**extra: Any) -> bytes:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    return json.dumps({"inputs": [tensor], **extra}).encode()


def post(server: Any, body: bytes, *lines: bytes) -> Said:
    head = [b"POST " + INFER_TARGET.encode() + b" HTTP/1.1", b"host: x", *lines]
    if not lines:
        head.append(b"content-length: %d" % len(body))
    return http1(server, b"\r\n".join(head) + b"\r\n\r\n" + body)


def chunks_of(server: Any, count: int) -> Said:
    text = rest_json()
    body = b"1\r\n \r\n" * (count - 1) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(text), text)
    return post(server, body, b"transfer-encoding: chunked")


def chunk_extensions_of(server: Any, count: int) -> Said:
    """Names and values of all extensions."""
    text = rest_json()
    body = b"%x;n=%s\r\n%s\r\n0\r\n\r\n" % (len(text), b"v" * (count - 1), text)
    return post(server, body, b"transfer-encoding: chunked")


def body_of(server: Any, count: int) -> Said:
    text = rest_json()
    return post(server, text + b" " * (count - len(text)))


def chunked_body_of(server: Any, count: int) -> Said:
    text = rest_json()
    filled = text + b" " * (count - len(text))
    half = count // 2
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (filled[:half], filled[half:]))
    return post(server, pieces + b"0\r\n\r\n", b"transfer-encoding: chunked")


HTTP1 = {
    "request line": Limit(8192, line_of, 414, "request line longer than 8192 bytes"),
    "header bytes": Limit(16384, header_bytes_of, 431, "headers larger than 16384 bytes"),
    "headers": Limit(64, headers_of, 431, "more than 64 headers"),
    "chunks": Limit(65536, chunks_of, 413, "more than 65536 chunks"),
    "chunk extensions": Limit(256, chunk_extensions_of, 400, "chunk extensions longer than 256 bytes"),
    "body": Limit(MAX_MESSAGE_BYTES, body_of, 413, f"want {MAX_MESSAGE_BYTES} or fewer"),
    "chunked body": Limit(MAX_MESSAGE_BYTES, chunked_body_of, 413, f"larger than {MAX_MESSAGE_BYTES} bytes"),
}


@around(HTTP1)
def test_http1(server: Any, limit: Limit, count: int) -> None:
    check(limit, count, server)
    assert post(server, rest_json()) == Said()


# --- JSON


def depth_of(server: Any, count: int) -> Said:
    """Nesting of the document, its own braces counted."""
    nested: Any = 0
    for _ in range(count - 1):
        nested = [nested]
    return post(server, rest_json(other=nested))


def keys_of(server: Any, count: int) -> Said:
    mine = len(["inputs", "name", "datatype", "shape", "data"])
    return post(server, rest_json(**{f"k{n}": 0 for n in range(count - mine)}))


def digits_of(server: Any, count: int) -> Said:
    return post(server, rest_json().replace(b"[1, 2,", b"[1." + b"0" * (count - 2) + b", 2,"))


def rest_inputs_of(server: Any, count: int) -> Said:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    return post(server, rest_json(inputs=[{**tensor, "name": f"i{n}"} for n in range(count)]))


def rest_outputs_of(server: Any, count: int) -> Said:
    return post(server, rest_json(outputs=[{"name": f"o{n}"} for n in range(count)]))


def rest_parameters_of(server: Any, count: int) -> Said:
    return post(server, rest_json(parameters={f"p{n}": n for n in range(count)}))


def rest_rank_of(server: Any, count: int) -> Said:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1] * (count - 1) + [4], "data": [1, 2, 3, 4]}
    return post(server, rest_json(inputs=[tensor]))


JSON = {
    "depth": Limit(32, depth_of, 400, "32"),
    "keys": Limit(1000, keys_of, 400, "1000"),
    "digits": Limit(64, digits_of, 400, "64"),
    "inputs": Limit(64, rest_inputs_of, 400, "inputs: got more than 64"),
    "outputs": Limit(64, rest_outputs_of, 400, "outputs: got more than 64"),
    "parameters": Limit(64, rest_parameters_of, 400, "parameters: got more than 64"),
    "rank": Limit(16, rest_rank_of, 400, "got more than 16 dimensions"),
}


@around(JSON)
def test_json(server: Any, limit: Limit, count: int) -> None:
    check(limit, count, server)
    assert post(server, rest_json()) == Said()


# --- gRPC messages


@pytest.fixture(scope="module")
def channel(server: Any) -> Any:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as opened:
        yield opened


def called(server: Any, made: Any, **kwargs: Any) -> Said:
    payload = made if isinstance(made, bytes) else made.SerializeToString()
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as opened:
        answer = grpc_call(opened, INFER, payload, **kwargs)
    return Said(answer.code, answer.message) if isinstance(answer, Refused) else Said()


def message_of(server: Any, count: int, **kwargs: Any) -> Said:
    """A good request, and unknown bytes (field 1023, length-delimited) up to the size."""
    good = message(GOOD).SerializeToString()
    left = count - len(good) - 2 - 4  # the tag and a length of four bytes
    length = bytes([left & 127 | 128, left >> 7 & 127 | 128, left >> 14 & 127 | 128, left >> 21])
    return called(server, good + b"\xfa\x3f" + length + bytes(left), **kwargs)


def compressed_message_of(server: Any, count: int) -> Said:
    return message_of(server, count, compression=grpc.Compression.Gzip)


def grpc_inputs_of(server: Any, count: int) -> Said:
    made = service_pb2.ModelInferRequest(model_name="batch_fp32")
    for number in range(count):
        made.inputs.add(name=f"i{number}", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend(
            [1] * 4
        )
    return called(server, made)


def raw_contents_of(server: Any, count: int) -> Said:
    made = message(GOOD)
    made.raw_input_contents.extend([b""] * (count - 1))
    return called(server, made)


def grpc_outputs_of(server: Any, count: int) -> Said:
    made = message(GOOD)
    for number in range(count):
        made.outputs.add(name=f"o{number}")
    return called(server, made)


def grpc_parameters_of(server: Any, count: int) -> Said:
    made = message(GOOD)
    for number in range(count):
        made.parameters[f"p{number}"].int64_param = number
    return called(server, made)


def grpc_rank_of(server: Any, count: int) -> Said:
    made = message(GOOD)
    made.inputs[0].shape[:] = [1] * (count - 1) + [4]
    return called(server, made)


def timeout_digits_of(server: Any, count: int) -> Said:
    """By hand: grpcio would not send it."""
    target = grpc_target(server.grpc)
    with target.peer() as peer:
        peer.send(target.request(1, [*target.fields, (b"grpc-timeout", b"9" * count + b"u")]))
        answer = peer.answer(1)
    found = {**answer.headers, **answer.trailers}
    return Said(int(found["grpc-status"]), found.get("grpc-message", ""))


TOO_LARGE = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
GRPC = {
    "message": Limit(MAX_MESSAGE_BYTES, message_of, TOO_LARGE, str(MAX_MESSAGE_BYTES)),
    "unpacked message": Limit(MAX_MESSAGE_BYTES, compressed_message_of, TOO_LARGE, str(MAX_MESSAGE_BYTES)),
    "inputs": Limit(64, grpc_inputs_of, INVALID, "want 64 or fewer"),
    "raw contents": Limit(64, raw_contents_of, INVALID, "want 64 or fewer"),
    "outputs": Limit(256, grpc_outputs_of, INVALID, "got more than 256 outputs"),
    "parameters": Limit(64, grpc_parameters_of, INVALID, "parameters: got more than 64"),
    "rank": Limit(16, grpc_rank_of, INVALID, "want 16 or fewer"),
    "digits of grpc-timeout": Limit(8, timeout_digits_of, INVALID, "up to 8 digits"),
}


@around(GRPC)
def test_grpc(server: Any, channel: Any, limit: Limit, count: int) -> None:
    check(limit, count, server)
    assert isinstance(grpc_call(channel, INFER, message(GOOD).SerializeToString()), bytes)


# --- HTTP/2: beyond a limit the connection ends with GOAWAY ENHANCE_YOUR_CALM and the limit's word


@dataclass(frozen=True)
class Flood:
    most: int
    frames: Callable[[Target, int], bytes]
    words: bytes


def block_of_size(target: Target, count: int) -> bytes:
    """A header list of `count` bytes: names, values and 32 for each field (RFC 9113 section 6.5.2)."""
    size = sum(len(n) + len(v) + 32 for n, v in target.fields)
    return target.head + literal(b"x", b"v" * (count - size - 1 - 32))


def pieces(target: Target, count: int) -> bytes:
    """A header block in `count` CONTINUATIONs, behind HEADERS."""
    rest = [continuation(1, b"", last=n == count - 1) for n in range(count)]
    return headers(1, target.head, last=False) + b"".join(rest)


def each_stream(one: Callable[[int], bytes]) -> Callable[[Target, int], bytes]:
    return lambda _, count: b"".join(one(2 * n + 1) for n in range(count))


FLOODS = {
    "PING": Flood(100, lambda _, n: ping() * n, b"too_many_pings"),
    # One came with the preface.
    "SETTINGS": Flood(99, lambda _, n: settings() * n, b"too_many_settings"),
    "PRIORITY": Flood(100, each_stream(lambda s: priority(s, 0)), b"too_many_priority_frames"),
    "empty DATA": Flood(100, lambda t, n: t.open(1) + data(1) * n, b"too_many_empty_frames"),
    "padding alone": Flood(100, lambda t, n: t.open(1) + data(1, padding=1) * n, b"too_many_empty_frames"),
    "unknown frames": Flood(100, lambda _, n: frame(0x33, 0, 0) * n, b"too_many_unknown_frames"),
    # The one request earns two.
    "WINDOW_UPDATE": Flood(10_000, lambda _, n: window_update(0, 1) * n, b"too_many_window_updates"),
    "RST_STREAM": Flood(200, lambda t, n: t.open(1) + rst_stream(1) * n, b"too_many_resets"),
    "streams that we have to reset": Flood(
        200,
        lambda t, n: b"".join(headers(2 * s + 1, t.head + literal(b"Upper", b"")) for s in range(n)),
        b"too_many_stream_errors",
    ),
    "headers": Flood(
        64,
        lambda t, n: headers(1, t.head + literal(b"x", b"") * (n - len(t.fields))),
        b"header_list_too_large",
    ),
    "header list": Flood(
        16384,
        lambda t, n: (
            headers(1, block_of_size(t, n)[:9000], last=False) + continuation(1, block_of_size(t, n)[9000:])
        ),
        b"header_list_too_large",
    ),
    "trailers": Flood(
        64,
        lambda t, n: t.open(1) + data(1, t.content) + headers(1, literal(b"x", b"") * n, end=True),
        b"header_list_too_large",
    ),
    "CONTINUATION": Flood(8, pieces, b"too_many_continuations"),
    # libnghttp2's own limit and words.
    "entries of SETTINGS": Flood(32, lambda _, n: settings(*[(0xFF, 0)] * n), b"too many setting"),
}


@pytest.mark.parametrize("step", [-1, 0, 1], ids=["below", "at", "above"])
@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("port", ["grpc", "http"])
def test_http2(server: Any, port: str, name: str, step: int) -> None:
    """All in one segment: the buckets gain nothing meanwhile."""
    target = grpc_target(server.grpc) if port == "grpc" else rest_target(server.http)
    flood = FLOODS[name]
    with target.peer() as peer:
        peer.send(flood.frames(target, flood.most + step))
        if step == 1:
            peer.expect_connection_error(Code.ENHANCE_YOUR_CALM, reason=flood.words)
        else:
            still_alive(peer)
    target.serves()


def still_alive(peer: Peer) -> None:
    """A SETTINGS ACK or any other sign, without a PING of ours where PINGs are what is counted: the server is asked for
    its silence instead, by a request that it refuses at once."""
    probe = headers(2**31 - 1, block([(b":method", b"GET")]), end=True)
    peer.send(probe)
    ended = peer.until(
        lambda f: f.type == Type.GOAWAY or f.stream == 2**31 - 1, "an answer to a malformed request"
    )
    assert ended.type == Type.RST_STREAM or b"too_many_stream_errors" in ended.reason, peer.story()


def path_of(server: Any, count: int) -> Said:
    target = rest_target(server.http)
    path = b"/v2/health/live?" + b"q" * (count - len(b"/v2/health/live?"))
    fields = replaced(replaced(target.fields, b":path", path), b":method", b"GET")
    with target.peer() as peer:
        peer.send(headers(1, block(fields), end=True))
        answer = peer.answer(1)
    return Said(0 if answer.status == 200 else answer.status, answer.body.decode())


@around({"path": Limit(8192, path_of, 414, "longer than 8192 bytes")})
def test_http2_path(server: Any, limit: Limit, count: int) -> None:
    check(limit, count, server)


# --- metrics


def test_refusals_are_counted(server: Any) -> None:
    """By code, whichever limit it was."""

    def refused(reason: str) -> float:
        return float(server.scrape()[f'fastserve_requests_rejected_total{{reason="{reason}"}}'])

    before = refused("resource_exhausted"), refused("invalid_argument")
    for limit in (HTTP1["headers"], HTTP1["body"], GRPC["message"]):
        limit.ask(server, limit.most + 1)
    for limit in (JSON["depth"], GRPC["rank"]):
        limit.ask(server, limit.most + 1)
    assert (refused("resource_exhausted"), refused("invalid_argument")) == (before[0] + 3, before[1] + 2)


@pytest.mark.parametrize("port", ["grpc", "http"])
@pytest.mark.parametrize("name", ["PING", "header list", "streams that we have to reset"])
def test_closed_connections_are_counted(server: Any, port: str, name: str) -> None:
    """A connection that passed a limit of HTTP/2 is one refusal."""
    target = grpc_target(server.grpc) if port == "grpc" else rest_target(server.http)

    def refused() -> float:
        return float(server.scrape()['fastserve_requests_rejected_total{reason="resource_exhausted"}'])

    before = refused()
    with target.peer() as peer:
        peer.send(FLOODS[name].frames(target, FLOODS[name].most + 1))
        peer.expect_connection_error(Code.ENHANCE_YOUR_CALM)
    deadline = time.monotonic() + 10
    while refused() == before and time.monotonic() < deadline:
        time.sleep(0.01)  # the socket is closed before its connection is counted
    assert refused() == before + 1
