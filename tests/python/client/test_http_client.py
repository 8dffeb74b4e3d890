"""The HTTP client in its two forms against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_client import OwnClient
from scripted_server import Exchange, ScriptedServer, echo

from fastserve.client import AsyncClient, Client, Input, Output, Retry
from fastserve.client.http_sync import HttpTransport
from fastserve.errors import (
    DeadlineExceeded,
    FastserveError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

X = {"x": np.arange(3, dtype=np.float32)}
QUICK = Retry(attempts=3, first_delay=0.001)


def closes(exchange: Exchange) -> None:
    exchange.close()


def resets(exchange: Exchange) -> None:
    exchange.reset()


def busy(exchange: Exchange) -> None:
    exchange.answer(503, {"error": "Exceeds maximum queue size"})


def silent(exchange: Exchange) -> None:
    pass


def test_binary_where_the_server_lists_it(form: str) -> None:
    with ScriptedServer(echo) as server, OwnClient(form, server.url) as client:
        result = client.infer(
            "m",
            X | {"s": np.array(["é"], object)},
            id="7",
            outputs=["x", Output("s", classification=2)],
            priority=3,
        )
        assert np.array_equal(result["x"], X["x"])
        assert result["s"].tolist() == ["é".encode()]
        assert (result.id, result.model, result.model_version, len(result)) == ("7", "m", "1", 2)
        assert server.paths == ["/v2", "/v2/models/m/infer"]
        assert server.accepted == 1
        request = server.exchanges[1].json
        assert request["parameters"] == {"priority": 3, "binary_data_output": True}
        assert request["outputs"] == [
            {"name": "x", "parameters": {"binary_data": True}},
            {"name": "s", "parameters": {"binary_data": True, "classification": 2}},
        ]
        with pytest.raises(KeyError, match="no output 'zz'; there are x, s"):
            result["zz"]


def test_json_where_it_does_not(form: str) -> None:
    def plain(exchange: Exchange) -> None:
        if exchange.path == "/v2":
            exchange.answer(
                200, {"name": "kserve", "version": "1", "extensions": ["model_repository_extension"]}
            )
        else:
            echo(exchange)

    with ScriptedServer(plain) as server, OwnClient(form, server.url) as client:
        assert np.array_equal(client.infer("m", X)["x"], X["x"])
        assert server.exchanges[1].json == {
            "inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [0.0, 1.0, 2.0]}]
        }
        with pytest.raises(InvalidArgument, match="FP16, which has no form in JSON"):
            client.infer("m", {"x": np.zeros(1, np.float16)})


def test_json_where_there_is_no_metadata(form: str) -> None:
    def without(exchange: Exchange) -> None:
        exchange.answer(404, {"error": "Not Found"}) if exchange.path == "/v2" else echo(exchange)

    with ScriptedServer(without) as server, OwnClient(form, server.url) as client:
        client.infer("m", X)
        client.infer("m", X)
        assert server.paths == ["/v2", "/v2/models/m/infer", "/v2/models/m/infer"]  # asked once


def test_a_bare_array_is_the_only_input(form: str) -> None:
    with ScriptedServer(echo) as server, OwnClient(form, server.url, binary=True) as client:
        for _ in range(2):
            assert list(client.infer("m", X["x"])) == ["x"]
        assert server.paths == ["/v2/models/m", "/v2/models/m/infer", "/v2/models/m/infer"]


def test_names_and_headers_are_escaped(form: str) -> None:
    with ScriptedServer(echo) as server:
        with OwnClient(
            form, server.url + "/pre/fix", binary=True, headers={"Authorization": "Bearer t"}
        ) as client:
            client.infer("a/b c", X, version=3)
        exchange = server.exchanges[0]
        assert exchange.path == "/pre/fix/v2/models/a%2Fb%20c/versions/3/infer"
        assert exchange.headers["authorization"] == "Bearer t"
        assert exchange.headers["host"] == server.url.removeprefix("http://")


def test_over_a_unix_socket(form: str, tmp_path: Path) -> None:
    with ScriptedServer(echo, unix=str(tmp_path / "s")) as server, OwnClient(form, server.url) as client:
        assert np.array_equal(client.infer("m", X)["x"], X["x"])


# --- errors


@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        (
            400,
            b'{"error":"inputs[\\"x\\"].shape[0]: got 3, want 4"}',
            3,
            'inputs["x"].shape[0]: got 3, want 4',
        ),
        (404, b'{"error":"no model"}', 5, "no model"),
        (422, b'{"detail":"bad"}', 3, "bad"),
        (413, b"", 8, "HTTP 413 Some Reason"),
        (418, b"tea", 3, "tea"),
        (500, b"<html>oops", 13, "<html>oops"),
        (501, b'{"error":"u"}', 12, "u"),
        (504, b'{"error":"late"}', 4, "late"),
        (599, b"?", 13, "?"),
        (302, b"", 2, "HTTP 302 Some Reason"),
    ],
)
def test_the_servers_word(form: str, status: int, body: bytes, code: int, text: str) -> None:
    with (
        ScriptedServer(lambda e: e.answer(status, body)) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
        pytest.raises(FastserveError) as caught,
    ):
        client.infer("m", X)
    error = caught.value
    assert (error.code, error.message, error.http_status) == (code, text, status)
    assert error.field == ('inputs["x"].shape[0]' if status == 400 else "")
    assert len(server.exchanges) == 1, "the server's final word is not asked for twice"


@pytest.mark.parametrize("status", [200, 400, 404, 503])
def test_ready_is_a_question(form: str, status: int) -> None:
    with ScriptedServer(lambda e: e.answer(status)) as server, OwnClient(form, server.url) as client:
        assert [client.call("live"), client.call("ready"), client.call("ready", "m", version=2)] == [
            status == 200
        ] * 3
        assert server.paths == ["/v2/health/live", "/v2/health/ready", "/v2/models/m/versions/2/ready"]


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1]}]}',
        b'{"outputs":[{}]}',
    ],
)
def test_an_answer_that_cannot_be_read(form: str, body: bytes) -> None:
    with (
        ScriptedServer(lambda e: e.answer(200, body)) as server,
        OwnClient(form, server.url, binary=True) as client,
        pytest.raises(FastserveError, match="the server's answer") as caught,
    ):
        client.infer("m", X)
    assert caught.value.code == 2


def test_bytes_that_are_not_http(form: str) -> None:
    with (
        ScriptedServer(lambda e: e.connection.sendall(b"\x00\x00\x00\r\n\r\n")) as server,
        OwnClient(form, server.url, binary=True) as client,
        pytest.raises(FastserveError, match=r"does not speak HTTP/1\.1"),
    ):
        client.infer("m", X)


def test_the_largest_answer(form: str) -> None:
    answers = [b'{"a":"%s"}' % (b"x" * (size - 8)) for size in (99, 100, 101)]
    script = [lambda e, body=body: e.answer(200, body) for body in answers]
    with (
        ScriptedServer(*script) as server,
        OwnClient(form, server.url, max_message_bytes=100) as client,
    ):
        client.call("metadata")
        client.call("metadata")
        with pytest.raises(ResourceExhausted, match="more than 100 bytes"):
            client.call("metadata")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"priority": -1}, "priority: got -1"),
        ({"timeout": 0}, "timeout: got 0"),
        ({"parameters": {"a": [1]}}, 'parameters["a"]: got list'),
    ],
)
def test_bad_arguments_are_found_before_anything_is_sent(
    form: str, arguments: dict[str, Any], words: str
) -> None:
    with ScriptedServer(echo) as server, OwnClient(form, server.url, binary=True) as client:
        with pytest.raises(InvalidArgument) as caught:
            client.infer("m", X, **arguments)
        assert words in caught.value.message
        with pytest.raises(InvalidArgument, match="model: got an empty name"):
            client.infer("", X)
        with pytest.raises(InvalidArgument, match="files are given without a config"):
            client.call("load", "m", files={"1/model.onnx": b""})
        assert server.exchanges == []


def test_streams_are_grpcs(form: str) -> None:
    with (
        ScriptedServer(echo) as server,
        OwnClient(form, server.url) as client,
        pytest.raises(FastserveError, match="open the client with grpc://"),
    ):
        client.collect("stream", "m", X)


# --- connections, retries, deadlines


def test_connections_are_kept(form: str) -> None:
    with ScriptedServer(echo) as server, OwnClient(form, server.url, binary=True) as client:
        for _ in range(5):
            client.infer("m", X)
        assert server.accepted == 1


def test_a_connection_that_the_server_closed_is_not_used_again(form: str) -> None:
    def answers_and_closes(exchange: Exchange) -> None:
        echo(exchange)
        exchange.connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    closed = threading.Event()
    with (
        ScriptedServer(answers_and_closes, echo) as server,
        OwnClient(form, server.url, binary=True) as client,
    ):
        client.infer("m", X)
        assert closed.wait(5)
        if form == "asyncio":  # one pass of the loop, in which it hears of the end
            client._run(_pass())
        client.infer("m", X)
        assert (server.accepted, len(server.exchanges)) == (2, 2)


async def _pass() -> None:
    await asyncio.sleep(0.01)


def test_connection_close_is_obeyed(form: str) -> None:
    with (
        ScriptedServer(lambda e: e.answer(200, {"name": "a"}, Connection="close")) as server,
        OwnClient(form, server.url) as client,
    ):
        client.call("metadata")
        client.call("metadata")
        assert server.accepted == 2


def unused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_nobody_there(form: str) -> None:
    url = unused_url()
    with OwnClient(form, url, retry=QUICK) as client, pytest.raises(Unavailable) as caught:
        client.infer("m", X)
    assert url in caught.value.message
    assert "refused" in caught.value.message


def test_a_full_queue_is_tried_again(form: str) -> None:
    with (
        ScriptedServer(busy, busy, echo) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
    ):
        assert np.array_equal(client.infer("m", X)["x"], X["x"])
        assert len(server.exchanges) == 3


def test_but_not_for_ever(form: str) -> None:
    with (
        ScriptedServer(busy) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
    ):
        with pytest.raises(Unavailable, match="Exceeds maximum queue size"):
            client.infer("m", X)
        assert len(server.exchanges) == 3


@pytest.mark.parametrize("breaks", [closes, resets])
def test_what_may_have_run_is_not_sent_again(form: str, breaks: Any) -> None:
    with (
        ScriptedServer(breaks, echo) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
    ):
        with pytest.raises(Unavailable):
            client.infer("m", X)
        assert len(server.exchanges) == 1


def test_unless_the_caller_says_that_it_may(form: str) -> None:
    with (
        ScriptedServer(closes, echo) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
    ):
        client.infer("m", X, idempotent=True)
        assert len(server.exchanges) == 2


def test_reading_calls_may(form: str) -> None:
    with ScriptedServer(closes, echo) as server, OwnClient(form, server.url, retry=QUICK) as client:
        assert client.call("metadata", "m").inputs[0].name == "x"


def test_a_proxys_503_is_not_the_servers(form: str) -> None:
    def proxy(exchange: Exchange) -> None:
        exchange.answer(503, b"upstream connect error or disconnect/reset before headers")

    with (
        ScriptedServer(proxy, echo) as server,
        OwnClient(form, server.url, binary=True, retry=QUICK) as client,
    ):
        with pytest.raises(Unavailable):
            client.infer("m", X)
        assert len(server.exchanges) == 1


def test_a_passed_deadline_is_final(form: str) -> None:
    with ScriptedServer(silent) as server, OwnClient(form, server.url, binary=True) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
            client.infer("m", X, timeout=0.05, idempotent=True)
        assert time.monotonic() - started < 2
        assert len(server.exchanges) == 1


def test_waiting_for_a_connection_counts() -> None:
    """One connection, taken by a request that is not answered: the other call's time passes in line."""
    with ScriptedServer(silent) as server, Client(server.url, binary=True, max_connections=1) as client:

        def infer_and_wait() -> None:
            with contextlib.suppress(DeadlineExceeded):
                client.infer("m", X, timeout=1.0)

        blocked = threading.Thread(target=infer_and_wait)
        blocked.start()
        while not server.exchanges:
            time.sleep(0.001)
        with pytest.raises(DeadlineExceeded, match="all 1 connections are busy"):
            client.infer("m", X, timeout=0.05)
        blocked.join()


async def test_waiting_for_a_connection_counts_in_asyncio() -> None:
    heard = threading.Event()
    with ScriptedServer(lambda _: heard.set()) as server:
        await _second_in_line(server, heard)


async def _second_in_line(server: ScriptedServer, heard: threading.Event) -> None:
    async with AsyncClient(server.url, binary=True, max_connections=1) as client:
        blocked = asyncio.create_task(client.infer("m", X, timeout=1.0))
        assert await asyncio.to_thread(heard.wait, 5)
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.05 s"):
            await client.infer("m", X, timeout=0.05)
        assert len(server.exchanges) == 1
        with pytest.raises(DeadlineExceeded):
            await blocked


def test_an_early_refusal_of_a_large_body_is_heard(form: str) -> None:
    """The server answers after the head and closes: the rest cannot be sent, but the answer is there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b'HTTP/1.1 413 Too Large\r\nContent-Length: 17\r\n\r\n{"error":"large"}')
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 20):
            pass
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with OwnClient(form, url, binary=True) as client, pytest.raises(ResourceExhausted, match="large"):
        client.infer("m", {"x": np.zeros(8 << 20, np.float32)})
    thread.join()
    listener.close()


def test_idle_connections_are_dropped_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastserve.client import http_sync

    with ScriptedServer(echo) as server, Client(server.url, binary=True) as client:
        client.infer("m", X)
        monkeypatch.setattr(http_sync, "IDLE_CONNECTION_S", 0.0)
        client.infer("m", X)
        assert server.accepted == 2
        assert isinstance(client._transport, HttpTransport)


def test_load_unload_index_and_statistics(form: str) -> None:
    def control(exchange: Exchange) -> None:
        if exchange.path.endswith("index"):
            exchange.answer(200, b'[{"name":"a"},{"name":"b","version":"1","state":"READY","reason":""}]')
        elif exchange.path.endswith("stats"):
            total = {"count": 2, "ns": 5}
            entry = {
                "name": "m",
                "version": "1",
                "inference_count": 4,
                "execution_count": 2,
                "last_inference": 9,
            }
            entry |= {
                "inference_stats": {"success": total, "queue": total},
                "batch_stats": [{"batch_size": 2, "compute_infer": total}],
            }
            exchange.answer(200, {"model_stats": [entry]})
        elif exchange.path.endswith("unload") and b"gone" in exchange.path.encode():
            exchange.answer(404, {"error": "gone"})
        else:
            exchange.answer(200)

    with ScriptedServer(control) as server, OwnClient(form, server.url) as client:
        client.call("load", "m")
        client.call("load", "m", config={"backend": "x"}, files={"1/model.onnx": b"\x00\xff"})
        client.call("unload", "m", dependents=True)
        with pytest.raises(NotFound):
            client.call("unload", "gone")
        index = client.call("index", ready=True)
        (stats,) = client.call("statistics", "m")
        client.call("statistics")
    assert server.paths[:3] == [
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
    ]
    assert server.exchanges[0].body == b""
    assert server.exchanges[1].json == {
        "parameters": {"config": '{"backend": "x"}', "file:1/model.onnx": "AP8="}
    }
    assert server.exchanges[2].json == {"parameters": {"unload_dependents": True}}
    assert server.exchanges[4].json == {"ready": True}
    assert [(entry.name, entry.version, entry.state) for entry in index] == [
        ("a", "", ""),
        ("b", "1", "READY"),
    ]
    assert (stats.inference_count, stats.execution_count, stats.last_inference_ms) == (4, 2, 9)
    assert (stats.total("queue").ns, stats.total("fail").ns, stats.batches[2]["compute_infer"].count) == (
        5,
        0,
        2,
    )
    assert server.paths[-2:] == ["/v2/models/m/stats", "/v2/models/stats"]


def test_bf16_for_a_bare_array(form: str) -> None:
    def bf16(exchange: Exchange) -> None:
        if exchange.method == "GET":
            exchange.answer(200, {"name": "m", "inputs": [{"name": "x", "datatype": "BF16", "shape": [1]}]})
        else:
            echo(exchange)

    with ScriptedServer(bf16) as server, OwnClient(form, server.url, binary=True) as client:
        for value in (np.ones(1, np.float32), Input(np.ones(1, np.float32), "BF16")):
            assert client.infer("m", value).datatypes == {"x": "BF16"}
