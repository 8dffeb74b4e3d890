"""ModelStreamInfer with the real clients: tritonclient.grpc, its asyncio form, and grpcio by hand."""

from __future__ import annotations

import asyncio
import itertools
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from duplex import Duplex
from model_repository import MAX_BATCH_ROWS, SLOW_S, TIGHT_QUEUE, identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2, service_pb2_grpc
from wire import SERVICE, Infer, Refused, Tensor, fp32, grpc_infer, message

STREAM = SERVICE + "ModelStreamInfer"
UNKNOWN = "Request for unknown model: 'nobody' is not found"
QUEUE_FULL = "Exceeds maximum queue size"


def row(value: float) -> Any:
    return np.full((1, 4), value, np.float32)


def inputs(x: Any, name: str = "INPUT0") -> list[Any]:
    tensor = triton.InferInput(name, list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return [tensor]


def one(model: str, id: str = "", **parameters: Any) -> Infer:
    return Infer(model, (fp32("INPUT0", 1, 4),), id=id, parameters=parameters)


class Stream:
    """tritonclient.grpc's own stream, with the callback's results in a queue."""

    def __init__(self, client: Any, **kwargs: Any) -> None:
        self.results: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client = client
        client.start_stream(callback=lambda result, error: self.results.put((result, error)), **kwargs)

    def infer(self, model: str, x: Any, **kwargs: Any) -> None:
        self.client.async_stream_infer(model, inputs(x), **kwargs)

    def next(self) -> tuple[Any, Any]:
        return self.results.get(timeout=20)


@pytest.fixture
def client(server: RunningServer) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as opened:
        yield opened


# --- tritonclient.grpc


def test_one_request_and_its_answer(client: Any) -> None:
    stream = Stream(client)
    stream.infer("batch_fp32", row(3), request_id="a", outputs=[triton.InferRequestedOutput("OUTPUT0")])
    result, error = stream.next()
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row(3))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("a", "batch_fp32", "1")
    client.stop_stream()


def test_answers_carry_the_final_flag(client: Any) -> None:
    """Triton puts it into every response of a stream; a model with one answer per request has no empty one behind it."""
    stream = Stream(client)
    for opted in (False, True):
        stream.infer("batch_fp32", row(1), enable_empty_final_response=opted)
        result, _ = stream.next()
        assert result.get_response().parameters["triton_final_response"].bool_param is True
        assert result.as_numpy("OUTPUT0") is not None
    client.stop_stream()
    assert stream.results.empty()


def test_many_requests_answer_in_order(client: Any) -> None:
    stream = Stream(client)
    for number in range(500):
        stream.infer("batch_fp32", row(number), request_id=str(number))
    for number in range(500):
        result, error = stream.next()
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row(number))
    client.stop_stream()


def test_a_slow_model_does_not_let_later_answers_pass(client: Any) -> None:
    stream = Stream(client)
    for name in ("slow", "batch_fp32", "slow", "batch_fp32"):
        stream.infer(name, row(1), request_id=name)
    got = [stream.next()[0].get_response().model_name for _ in range(4)]
    assert got == ["slow", "batch_fp32", "slow", "batch_fp32"]
    client.stop_stream()


def test_requests_of_a_stream_share_batches(client: Any, server: RunningServer) -> None:
    stream = Stream(client)
    started = time.monotonic()
    for _ in range(2 * MAX_BATCH_ROWS):
        stream.infer("slow", row(1))
    for _ in range(2 * MAX_BATCH_ROWS):
        assert stream.next()[1] is None
    assert time.monotonic() - started < 5 * SLOW_S  # one by one it would be 16
    client.stop_stream()


def test_stop_stream_waits_for_the_answers(client: Any) -> None:
    stream = Stream(client)
    for _ in range(3):
        stream.infer("slow", row(1))
    client.stop_stream()  # half-closes, and waits for the end
    assert [stream.results.get_nowait()[1] for _ in range(3)] == [None] * 3
    assert stream.results.empty()


def test_stop_stream_without_a_request(client: Any) -> None:
    stream = Stream(client)
    client.stop_stream()
    assert stream.results.empty()


def test_a_client_may_open_one_stream_after_the_other(client: Any) -> None:
    for number in range(5):
        stream = Stream(client)
        stream.infer("batch_fp32", row(number))
        assert stream.next()[0].as_numpy("OUTPUT0")[0, 0] == number
        client.stop_stream()


def test_unary_calls_beside_a_stream(client: Any) -> None:
    stream = Stream(client)
    stream.infer("slow", row(1))
    answer = client.infer("batch_fp32", inputs(row(2)))
    assert answer.as_numpy("OUTPUT0")[0, 0] == 2
    assert client.is_server_live()
    assert stream.next()[1] is None
    client.stop_stream()


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_algorithm(client: Any, algorithm: str) -> None:
    stream = Stream(client, compression_algorithm=algorithm)
    x = np.tile(np.arange(8, dtype=np.float32), (64, 32))
    stream.infer("any_fp32", x)
    result, error = stream.next()
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), x)
    client.stop_stream()


# --- errors in band


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown model": ("nobody", {}, UNKNOWN),
    "unknown version": ("batch_fp32", {"model_version": "9"}, "version 9 is not found"),
    "unknown output": (
        "batch_fp32",
        {"outputs": [triton.InferRequestedOutput("NO_SUCH")]},
        "unexpected inference output 'NO_SUCH'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_an_error_is_the_answer_and_the_stream_goes_on(client: Any, case: str) -> None:
    model, kwargs, words = BAD[case]
    stream = Stream(client)
    stream.infer(model, row(1), request_id="bad", **kwargs)
    _, error = stream.next()
    assert words in str(error)
    assert "[request id: bad]" in str(error)
    stream.infer("batch_fp32", row(2), request_id="good")
    result, error = stream.next()
    assert error is None
    assert result.get_response().id == "good"
    client.stop_stream()


def test_an_error_names_the_request_in_the_response(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    duplex.send(one("nobody", id="who"))
    answer = duplex.receive()
    assert answer.error_message == f"[request id: who] {UNKNOWN}"
    assert answer.infer_response.id == "who"
    assert answer.infer_response.parameters["triton_final_response"].bool_param is True
    assert not answer.infer_response.outputs
    duplex.half_close()
    assert list(duplex.call) == []
    assert duplex.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff" * 50, b"\x0b" * 2000, b"\x0a\x02\xff\xfe"],
    ids=["empty", "noise", "groups", "utf8"],
)
def test_a_message_that_is_no_request(channel: grpc.Channel, payload: bytes) -> None:
    sent: queue.Queue[bytes | None] = queue.Queue()
    call = channel.stream_stream(STREAM)(iter(sent.get, None), timeout=20)
    sent.put(payload)
    assert service_pb2.ModelStreamInferResponse.FromString(next(call)).error_message != ""
    sent.put(message(one("batch_fp32", id="good")).SerializeToString())
    assert service_pb2.ModelStreamInferResponse.FromString(next(call)).infer_response.id == "good"
    sent.put(None)
    assert list(call) == []


def test_queue_full_is_one_requests_error(channel: grpc.Channel) -> None:
    """`tight` runs one and lets two wait."""
    duplex = Duplex(channel)
    duplex.send(one("tight", id="runs"))
    time.sleep(SLOW_S / 4)
    for number in range(TIGHT_QUEUE + 2):
        duplex.send(one("tight", id=str(number)))
    errors = [duplex.receive().error_message for _ in range(TIGHT_QUEUE + 3)]
    assert [bool(e) for e in errors] == [False] * (TIGHT_QUEUE + 1) + [True] * 2
    assert all(QUEUE_FULL in e for e in errors[-2:])
    duplex.half_close()
    assert list(duplex.call) == []


def test_the_timeout_parameter_is_one_requests_error(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    duplex.send(one("tight", id="runs"))
    time.sleep(SLOW_S / 4)
    duplex.send(one("tight", id="late", timeout=1000))
    assert duplex.receive().error_message == ""
    assert "Request timeout expired" in duplex.receive().error_message
    duplex.half_close()
    assert list(duplex.call) == []


def test_a_message_over_the_limit_ends_the_stream(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    duplex.send(Infer("any_fp32", (fp32("INPUT0", 1100, 1024),)))
    with pytest.raises(grpc.RpcError):
        duplex.receive()
    assert duplex.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "limit 4194304" in duplex.call.details()
    duplex.half_close()


# --- triton_grpc_error


@pytest.mark.parametrize("model", ["nobody", "tight"], ids=["refused", "queue full"])
def test_triton_grpc_error_closes_the_stream_with_the_status(channel: grpc.Channel, model: str) -> None:
    duplex = Duplex(channel, metadata=(("triton_grpc_error", "true"),))
    duplex.send(one("batch_fp32", id="fine"))
    assert duplex.receive().infer_response.id == "fine"
    answers: list[Any] = []
    for number in range(1 if model == "nobody" else 20):
        duplex.send(one(model, id=str(number)))
    with pytest.raises(grpc.RpcError):
        answers.extend(duplex.call)
    assert not any(answer.error_message for answer in answers)
    code = {"nobody": grpc.StatusCode.NOT_FOUND, "tight": grpc.StatusCode.UNAVAILABLE}[model]
    assert duplex.call.code() is code
    assert {"nobody": UNKNOWN, "tight": QUEUE_FULL}[model] in duplex.call.details()
    duplex.half_close()


def test_triton_grpc_error_through_tritonclient(client: Any) -> None:
    stream = Stream(client, headers={"triton_grpc_error": "true"})
    stream.infer("nobody", row(1))
    result, error = stream.next()
    assert result is None
    assert UNKNOWN in str(error)
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream()
    stream = Stream(client)  # a new stream of the same client works
    stream.infer("batch_fp32", row(1))
    assert stream.next()[1] is None
    client.stop_stream()


def test_without_it_the_stream_stays_open(client: Any) -> None:
    stream = Stream(client, headers={"triton_grpc_error": "false"})
    stream.infer("nobody", row(1))
    assert UNKNOWN in str(stream.next()[1])
    stream.infer("batch_fp32", row(1))
    assert stream.next()[1] is None
    client.stop_stream()


# --- cancelling frees places


def metric(server: RunningServer, name: str, *labels: str) -> float:
    """The sum over the series with these labels."""
    found = [
        value
        for series, value in server.scrape().items()
        if series.partition("{")[0] == name and all(label in series for label in labels)
    ]
    assert found, name
    return sum(found)


def cancelled(server: RunningServer, model: str) -> float:
    return metric(server, "nv_inference_request_failure", f'model="{model}"', 'reason="CANCELED"')


def pending(server: RunningServer, model: str) -> float:
    return metric(server, "nv_inference_pending_request_count", f'model="{model}"')


def eventually(what: Callable[[], Any], wanted: Any, seconds: float = 5) -> None:
    until = time.monotonic() + seconds
    while (got := what()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    assert got == wanted


def fill_tight(channel: grpc.Channel, server: RunningServer) -> list[Any]:
    """One runs, two wait, the next is refused: the three calls."""
    infer = channel.unary_unary(SERVICE + "ModelInfer")
    eventually(lambda: pending(server, "tight"), 0)
    time.sleep(SLOW_S * 1.2)  # what other tests left in the instance
    calls = []
    for waiting in range(TIGHT_QUEUE + 1):
        calls.append(infer.future(message(one("tight")).SerializeToString(), timeout=20))
        eventually(lambda: pending(server, "tight"), waiting)
    refused = grpc_infer(channel, one("tight"))
    assert isinstance(refused, Refused)
    assert refused.code == 14, refused
    assert QUEUE_FULL in refused.message
    return calls


def test_cancelling_a_call_frees_its_place_in_the_queue(channel: grpc.Channel, server: RunningServer) -> None:
    calls = fill_tight(channel, server)
    before = cancelled(server, "tight")
    calls[-1].cancel()
    eventually(lambda: pending(server, "tight"), TIGHT_QUEUE - 1, SLOW_S / 2)
    replacement = grpc_infer(channel, one("tight", id="took its place"))
    assert replacement.id == "took its place"
    assert cancelled(server, "tight") == before + 1
    for call in calls[:-1]:
        call.result()


def test_cancelling_a_stream_frees_all_its_places(channel: grpc.Channel, server: RunningServer) -> None:
    eventually(lambda: pending(server, "tight"), 0)
    time.sleep(SLOW_S * 1.2)
    before = cancelled(server, "tight")
    duplex = Duplex(channel)
    duplex.send(one("tight"))
    eventually(lambda: pending(server, "tight"), 0)
    time.sleep(SLOW_S / 8)
    for _ in range(TIGHT_QUEUE):
        duplex.send(one("tight"))
    eventually(lambda: pending(server, "tight"), TIGHT_QUEUE, SLOW_S / 2)
    duplex.call.cancel()
    eventually(lambda: pending(server, "tight"), 0, SLOW_S / 2)
    eventually(lambda: cancelled(server, "tight") - before, TIGHT_QUEUE)
    duplex.half_close()


def test_stop_stream_with_cancel_requests(client: Any, server: RunningServer) -> None:
    stream = Stream(client)
    for _ in range(5):
        stream.infer("tight", row(1))
    started = time.monotonic()
    client.stop_stream(cancel_requests=True)
    assert time.monotonic() - started < SLOW_S
    eventually(lambda: pending(server, "tight"), 0, SLOW_S)
    answers = [stream.results.get_nowait() for _ in range(stream.results.qsize())]
    assert all(result is None for result, _ in answers if result is None)
    assert any(error is not None and "CANCELLED" in str(error).upper() for _, error in answers), answers


def test_a_deadline_of_the_stream_ends_it(client: Any, server: RunningServer) -> None:
    stream = Stream(client, stream_timeout=SLOW_S / 2)
    stream.infer("slow", row(1))
    _, error = stream.next()
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    client.stop_stream()


# --- asyncio


def run(coroutine: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine(), 30))


def aio_request(model: str, number: int, **kwargs: Any) -> dict[str, Any]:
    return {
        "model_name": model,
        "inputs": inputs(row(number)),
        "request_id": str(number),
        **kwargs,
    }


def test_aio_stream_infer(server: RunningServer) -> None:
    async def scenario() -> list[int]:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in range(20):
                yield aio_request("batch_fp32", number)
                await asyncio.sleep(0)

        async with triton_aio.InferenceServerClient(server.grpc) as opened:
            got = []
            async for result, error in opened.stream_infer(requests()):
                assert error is None
                number = int(result.get_response().id)
                np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), row(number))
                got.append(number)
            return got

    assert run(scenario) == list(range(20))


def test_aio_errors_and_answers(server: RunningServer) -> None:
    async def scenario() -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield aio_request("nobody", 1)
            yield aio_request("batch_fp32", 2)

        async with triton_aio.InferenceServerClient(server.grpc) as opened:
            answers = [pair async for pair in opened.stream_infer(requests())]
        assert UNKNOWN in str(answers[0][1])
        assert answers[1][0].get_response().id == "2"

    run(scenario)


def test_aio_cancel(server: RunningServer) -> None:
    async def scenario() -> None:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number in itertools.count():
                yield aio_request("slow", number)
                await asyncio.sleep(SLOW_S / 4)

        async with triton_aio.InferenceServerClient(server.grpc) as opened:
            answers = opened.stream_infer(requests())
            first, error = await anext(answers)
            assert error is None
            assert first.get_response().id == "0"
            assert answers.cancel()
            with pytest.raises(asyncio.CancelledError):
                _ = [answer async for answer in answers]
            assert await opened.is_server_live()

    run(scenario)
    eventually(lambda: pending(server, "slow"), 0, 2 * SLOW_S)


def test_aio_many_streams_of_one_connection(server: RunningServer) -> None:
    async def scenario() -> None:
        async with grpc.aio.insecure_channel(server.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def one_stream(which: int) -> None:
                call = stub.ModelStreamInfer(timeout=20)
                for number in range(20):
                    await call.write(message(one("batch_fp32", id=f"{which}/{number}")))
                await call.done_writing()
                ids = [answer.infer_response.id async for answer in call]
                assert ids == [f"{which}/{number}" for number in range(20)]

            await asyncio.gather(*(one_stream(which) for which in range(100)))

    run(scenario)


# --- flow control and size


def test_thousands_of_requests_without_reading(channel: grpc.Channel) -> None:
    """More than a stream has places for (256): the rest waits at the client, none is refused."""
    duplex = Duplex(channel)
    count = 3000
    for number in range(count):
        duplex.send(Infer("any_fp32", (fp32("INPUT0", 4, 64),), id=str(number)))
    duplex.half_close()
    time.sleep(0.5)
    answers = list(duplex.call)
    assert [a.infer_response.id for a in answers] == [str(number) for number in range(count)]
    assert not any(a.error_message for a in answers)


def test_large_messages(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    requests = [
        Infer("any_fp32", (Tensor("INPUT0", "FP32", (900, 1024), bytes([k]) * (900 * 4096)),), id=str(k))
        for k in range(6)
    ]
    for request in requests:
        duplex.send(request)
    duplex.half_close()
    for request, answer in zip(requests, duplex.call, strict=True):
        assert answer.infer_response.raw_output_contents[0] == request.inputs[0].data


# --- drain


@pytest.mark.parametrize("threads", ["0", "1"], ids=["uvloop", "io_threads"])
def test_drain_answers_what_is_in_and_ends_unavailable(tmp_path: Path, threads: str) -> None:
    """SIGTERM with open streams: GOAWAY, the answers, then UNAVAILABLE; and the server stops by itself."""
    repository = tmp_path / "models"
    identity(repository, "slow", [("FP32", [4])], max_batch=8, delay_s=SLOW_S)
    with (
        RunningServer(repository, tmp_path, "--io-threads", threads) as draining,
        grpc.insecure_channel(draining.grpc) as channel,
    ):
        busy, idle = Duplex(channel), Duplex(channel)
        idle.send(one("slow", id="before"))
        assert idle.receive().infer_response.id == "before"
        busy.send(one("slow", id="in"))
        time.sleep(SLOW_S / 4)
        draining.signal()
        assert busy.receive().infer_response.id == "in"
        for duplex in (busy, idle):
            with pytest.raises(grpc.RpcError):
                duplex.receive()
            assert duplex.call.code() is grpc.StatusCode.UNAVAILABLE
            duplex.half_close()
        assert draining.wait(10) == 0, draining.log()
