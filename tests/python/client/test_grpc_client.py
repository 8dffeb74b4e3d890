"""The gRPC client in its two forms against a grpcio server made of functions; raw sockets where a server must break."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from own_client import OwnClient
from scripted_server import echoed, grpc_server, message

from fastserve.client import Request, Retry
from fastserve.errors import DeadlineExceeded, FastserveError, InvalidArgument, ResourceExhausted, Unavailable

X = {"x": np.arange(3, dtype=np.float32)}
QUICK = Retry(attempts=3, first_delay=0.001)


def streamed(response: Any = None, error: str = "") -> Any:
    return message("ModelStreamInferResponse", infer_response=response, error_message=error)


def test_inference(form: str) -> None:
    seen: list[Any] = []

    def infer(request: Any, context: Any) -> Any:
        seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        return echoed(request)

    given = {"a": True, "b": -3, "c": 1.5, "d": "é", "e": 1 << 63}
    with grpc_server(ModelInfer=infer) as url, OwnClient(form, url, headers={"Authorization": "t"}) as client:
        result = client.infer(
            "m",
            X | {"s": np.array([b"\xff", "é"], object)},
            version=2,
            id="7",
            priority=5,
            parameters=given,
            timeout=9,
        )
    assert np.array_equal(result["x"], X["x"])
    assert result["s"].tolist() == [b"\xff", "é".encode()]
    assert (result.model, result.model_version, result.id) == ("m", "2", "7")
    assert result.parameters == given | {"priority": 5}
    request, metadata, remaining = seen[0]
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in request.parameters.items()}
    assert chosen == {
        "a": "bool_param",
        "b": "int64_param",
        "c": "double_param",
        "d": "string_param",
        "e": "uint64_param",
        "priority": "int64_param",
    }
    assert metadata["authorization"] == "t"
    assert 7 < remaining < 9.5


def test_typed_contents(form: str) -> None:
    """Servers in Python answer so."""

    def infer(request: Any, context: Any) -> Any:
        response = message("ModelInferResponse", model_name="m")
        fields = [
            ("FP32", "fp32_contents", [1.5, 2]),
            ("UINT8", "uint_contents", [1, 255]),
            ("BOOL", "bool_contents", [True, False]),
            ("BYTES", "bytes_contents", [b"a", b"\xff"]),
        ]
        for datatype, field, values in fields:
            tensor = response.outputs.add(name=datatype, datatype=datatype, shape=[2])
            getattr(tensor.contents, field).extend(values)
        return response

    with grpc_server(ModelInfer=infer) as url, OwnClient(form, url) as client:
        result = client.infer("m", X)
    assert {name: (array.dtype.str, array.tolist()) for name, array in result.items()} == {
        "FP32": ("<f4", [1.5, 2.0]),
        "UINT8": ("|u1", [1, 255]),
        "BOOL": ("|b1", [True, False]),
        "BYTES": ("|O", [b"a", b"\xff"]),
    }


def test_an_answer_that_does_not_fit(form: str) -> None:
    def infer(request: Any, context: Any) -> Any:
        response = echoed(request)
        response.raw_output_contents[0] = b"123"
        return response

    with (
        grpc_server(ModelInfer=infer) as url,
        OwnClient(form, url) as client,
        pytest.raises(FastserveError, match="cannot be read: output 'x'"),
    ):
        client.infer("m", X)


def test_control_calls(form: str) -> None:
    loads: list[Any] = []

    def config(request: Any, context: Any) -> Any:
        made = message("ModelConfigResponse")
        made.config.name, made.config.max_batch_size = request.name, 8
        made.config.input.add(name="x", data_type=11, dims=[16])
        made.config.parameters["k"].string_value = "v"
        return made

    def metadata(request: Any, context: Any) -> Any:
        made = message("ModelMetadataResponse", name="m", versions=["1"], platform="p")
        made.inputs.add(name="x", datatype="FP32", shape=[-1, 16])
        return made

    def stats(request: Any, context: Any) -> Any:
        made = message("ModelStatisticsResponse")
        entry = made.model_stats.add(name="m", version="1", inference_count=1 << 40)
        entry.inference_stats.queue.ns = 7
        return made

    def load(request: Any, context: Any) -> Any:
        loads.append(request)
        return message("RepositoryModelLoadResponse")

    def index(request: Any, context: Any) -> Any:
        made = message("RepositoryIndexResponse")
        made.models.add(name="m", state="READY")
        return made

    with (
        grpc_server(
            ServerLive=lambda r, c: message("ServerLiveResponse", live=True),
            ServerReady=lambda r, c: message("ServerReadyResponse", ready=False),
            ModelReady=lambda r, c: message("ModelReadyResponse", ready=r.version == "3"),
            ServerMetadata=lambda r, c: message("ServerMetadataResponse", name="s", extensions=["e"]),
            ModelMetadata=metadata,
            ModelConfig=config,
            ModelStatistics=stats,
            RepositoryModelLoad=load,
            RepositoryModelUnload=lambda r, c: message("RepositoryModelUnloadResponse"),
            RepositoryIndex=index,
        ) as url,
        OwnClient(form, url) as client,
    ):
        assert (client.call("live"), client.call("ready"), client.call("ready", "m", version=3)) == (
            True,
            False,
            True,
        )
        assert client.call("metadata").extensions == ("e",)
        assert client.call("metadata", "m").inputs[0].shape == (-1, 16)
        assert client.call("config", "m") == {
            "name": "m",
            "max_batch_size": 8,
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
            "parameters": {"k": {"string_value": "v"}},
        }
        (entry,) = client.call("statistics", "m")
        assert (entry.inference_count, entry.total("queue").ns) == (1 << 40, 7)
        assert client.call("index")[0].state == "READY"
        client.call("load", "m", config="{}", files={"1/a": b"\xff"})
        client.call("unload", "m", dependents=True)
    assert loads[0].parameters["config"].string_param == "{}"
    assert loads[0].parameters["file:1/a"].bytes_param == b"\xff"


# --- errors, retries


def refusing(code: grpc.StatusCode, text: str, times: int = 1 << 30) -> tuple[Any, list[int]]:
    calls: list[int] = []

    def infer(request: Any, context: Any) -> Any:
        calls.append(1)
        if len(calls) <= times:
            context.abort(code, text)
        return echoed(request)

    return infer, calls


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_every_code(form: str, code: grpc.StatusCode) -> None:
    infer, calls = refusing(code, 'inputs["x"].shape[0]: got 3, want 4')
    with (
        grpc_server(ModelInfer=infer) as url,
        OwnClient(form, url, retry=QUICK) as client,
        pytest.raises(FastserveError) as caught,
    ):
        client.infer("m", X)
    error = caught.value
    assert (error.code, error.message) == (code.value[0], 'inputs["x"].shape[0]: got 3, want 4')
    assert (error.field, error.http_status, len(calls)) == ('inputs["x"].shape[0]', None, 1)


def test_a_full_queue_is_tried_again(form: str) -> None:
    infer, calls = refusing(grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size", times=2)
    with grpc_server(ModelInfer=infer) as url, OwnClient(form, url, retry=QUICK) as client:
        assert np.array_equal(client.infer("m", X)["x"], X["x"])
    assert len(calls) == 3


def test_unavailable_by_itself_is_not(form: str) -> None:
    infer, calls = refusing(grpc.StatusCode.UNAVAILABLE, "who knows")
    with grpc_server(ModelInfer=infer) as url, OwnClient(form, url, retry=QUICK) as client:
        with pytest.raises(Unavailable):
            client.infer("m", X)
        assert len(calls) == 1
        with pytest.raises(Unavailable):
            client.infer("m", X, idempotent=True)
    assert len(calls) == 4


def test_nobody_there(form: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
    with OwnClient(form, url, retry=QUICK) as client, pytest.raises(Unavailable) as caught:
        client.infer("m", X)
    assert caught.value.message == f"{url}: Connection refused"


def test_a_connection_that_breaks_after_the_request(form: str) -> None:
    """SETTINGS, then the end: the request may have run."""
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[int] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(24)
            connection.sendall(b"\0\0\0\4\0\0\0\0\0")
            data = b""
            while b"ModelInfer" not in data and len(data) < 400:
                more = connection.recv(10_000)
                if not more:
                    break
                data += more
            heard.append(1)
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    url = f"grpc://127.0.0.1:{listener.getsockname()[1]}"
    with OwnClient(form, url, retry=QUICK) as client, pytest.raises(Unavailable):
        client.infer("m", X, timeout=5)
    listener.close()
    assert len(heard) == 1


def test_a_passed_deadline_is_final(form: str) -> None:
    calls = []
    go_on = threading.Event()

    def slow(request: Any, context: Any) -> Any:
        calls.append(1)
        go_on.wait(5)
        return echoed(request)

    with grpc_server(ModelInfer=slow) as url, OwnClient(form, url) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.infer("m", X, timeout=0.1, idempotent=True)
        assert time.monotonic() - started < 2
        go_on.set()
    assert len(calls) == 1


def test_message_limit(form: str) -> None:
    with grpc_server(ModelInfer=echoed) as url, OwnClient(form, url, max_message_bytes=1000) as client:
        client.infer("m", {"x": np.zeros(800, np.uint8)})
        with pytest.raises(ResourceExhausted, match="max_message_bytes of the client"):
            client.infer("m", {"x": np.zeros(1100, np.uint8)})


# --- streams


def parts(requests: Iterator[Any], context: Any) -> Iterator[Any]:
    """As many answers as x has elements; an error for an empty one."""
    for request in requests:
        count = request.inputs[0].shape[0]
        if not count:
            response = message("ModelInferResponse", id=request.id)
            yield streamed(response, "inputs[0].shape: got []")
        for at in range(count):
            response = echoed(request)
            response.parameters["triton_final_response"].bool_param = at == count - 1
            yield streamed(response)


def test_every_answer_of_one_request(form: str) -> None:
    with grpc_server(ModelStreamInfer=parts) as url, OwnClient(form, url) as client:
        results = client.collect("stream", "m", X, id="a")
    assert [(r.id, r.final) for r in results] == [("a", False), ("a", False), ("a", True)]
    assert np.array_equal(results[0]["x"], X["x"])


def test_an_error_of_one_request_is_raised(form: str) -> None:
    with (
        grpc_server(ModelStreamInfer=parts) as url,
        OwnClient(form, url) as client,
        pytest.raises(FastserveError, match="got \\[\\]") as caught,
    ):
        client.collect("stream", "m", {"x": np.zeros(0, np.float32)}, id="b")
    assert caught.value.request_id == "b"


def test_errors_among_many_requests_are_items(form: str) -> None:
    requests = [Request("m", {"x": np.zeros(size, np.float32)}, id=str(size)) for size in (1, 0, 2)]
    with grpc_server(ModelStreamInfer=parts) as url, OwnClient(form, url) as client:
        items = client.collect("stream_all", requests)
    ids = [item.request_id if isinstance(item, FastserveError) else item.id for item in items]
    assert ids == ["1", "0", "2", "2"]
    assert isinstance(items[1], FastserveError)


def test_leaving_the_loop_cancels(form: str) -> None:
    cancelled = threading.Event()

    def endless(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        context.add_callback(cancelled.set)
        request = next(requests)
        while context.is_active():
            yield streamed(echoed(request))

    with grpc_server(ModelStreamInfer=endless) as url, OwnClient(form, url) as client:
        assert len(client.collect("stream", "m", X, limit=3)) == 3
        assert cancelled.wait(5)


def test_a_stream_that_ends_with_a_status(form: str) -> None:
    def broken(requests: Iterator[Any], context: Any) -> Iterator[Any]:
        yield streamed(echoed(next(requests)))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no more")

    with (
        grpc_server(ModelStreamInfer=broken) as url,
        OwnClient(form, url) as client,
        pytest.raises(InvalidArgument, match="no more"),
    ):
        client.collect("stream", "m", X)


async def test_requests_that_wait_for_answers() -> None:
    """An asynchronous iterable of requests: the next one is made of the answer before."""
    import asyncio

    from fastserve.client import AsyncClient

    answers: asyncio.Queue[int] = asyncio.Queue()

    async def requests() -> Any:
        size = 1
        while size < 4:
            yield Request("m", {"x": np.zeros(size, np.float32)}, id=str(size))
            size = await answers.get() + 1

    with grpc_server(ModelStreamInfer=parts) as url:
        async with AsyncClient(url) as client:
            got = []
            async for item in client.stream_all(requests()):
                assert not isinstance(item, FastserveError)
                got.append((item.id, item.final))
                if item.final:
                    answers.put_nowait(int(item.id))
    assert got == [("1", True), ("2", False), ("2", True), ("3", False), ("3", False), ("3", True)]
