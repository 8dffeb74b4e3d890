"""The dispatcher: every call ends in exactly one status, the right one, whatever the handler does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fastserve import protos
from fastserve.errors import NotFound
from fastserve.frontends.grpc_registry import GrpcRouter, registered, rpc
from fastserve.frontends.served import Served

LIVE = "/inference.GRPCInferenceService/ServerLive"
READY = "/inference.GRPCInferenceService/ModelReady"
WATCH = "/grpc.health.v1.Health/Watch"

MODEL_READY = protos.message_class("inference.ModelReadyRequest")


async def settle() -> None:
    """Lets tasks that are ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_every_registered_path_is_a_method_of_a_service() -> None:
    for path in registered():
        assert protos.method(path).name == path.rpartition("/")[2]


def test_every_method_of_the_service_answers_something_or_is_inference() -> None:
    service = protos.method(LIVE).containing_service
    paths = {f"/{service.full_name}/{m.name}" for m in service.methods}
    assert paths - set(registered()) == {
        "/inference.GRPCInferenceService/ModelInfer",
        "/inference.GRPCInferenceService/ModelStreamInfer",
    }


def test_a_path_is_registered_once() -> None:
    with pytest.raises(ValueError, match="two handlers"):
        rpc(next(iter(registered())))(lambda request, call: None)


async def test_unary_reply(served: Served, grpc_call: Any) -> None:
    async def handler(request: Any, call: Any) -> Any:
        return call.response(ready=request.name == "m")

    call = grpc_call(READY, MODEL_READY(name="m").SerializeToString())
    GrpcRouter(served, {READY: handler}).on_call(call)
    await settle()
    assert call.finished == (0, "")
    assert protos.message_class("inference.ModelReadyResponse").FromString(call.sent[0]).ready


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/inference.GRPCInferenceService/Nothing",
            "unknown method Nothing for service inference.GRPCInferenceService",
        ),
        ("/other.Service/ServerLive", "unknown service other.Service"),
        ("/", "malformed method name"),
    ],
)
async def test_unknown_methods_are_unimplemented(
    served: Served, grpc_call: Any, path: str, words: str
) -> None:
    call = grpc_call(path)
    GrpcRouter(served).on_call(call)
    assert call.finished is not None
    assert call.finished[0] == 12
    assert words in call.finished[1]


async def test_an_unknown_path_is_not_echoed_in_full(served: Served, grpc_call: Any) -> None:
    call = grpc_call("/" + "a" * 5000 + "/m")
    GrpcRouter(served).on_call(call)
    assert len(call.finished[1]) < 300


async def test_our_errors_keep_their_code_and_words(served: Served, grpc_call: Any) -> None:
    async def handler(request: Any, call: Any) -> Any:
        raise NotFound("no such thing")

    call = grpc_call(LIVE)
    GrpcRouter(served, {LIVE: handler}).on_call(call)
    await settle()
    assert call.finished == (5, "no such thing")


async def test_an_undecodable_message_is_the_clients_fault(served: Served, grpc_call: Any) -> None:
    call = grpc_call(READY, b"\x0a\xff")
    GrpcRouter(served).on_call(call)
    await settle()
    assert call.finished[0] == 3
    assert "inference.ModelReadyRequest" in call.finished[1]


async def test_a_fault_of_ours_is_internal_and_only_the_log_says_why(
    served: Served, grpc_call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(request: Any, call: Any) -> Any:
        raise KeyError("secret path /root")

    call = grpc_call(LIVE, **{"x-request-id": b"r-17"})
    with caplog.at_level(logging.ERROR):
        GrpcRouter(served, {LIVE: handler}).on_call(call)
        await settle()
    assert call.finished[0] == 13
    assert "secret" not in call.finished[1]
    assert "secret path" in caplog.text
    assert caplog.records[0].request_id == "r-17"  # type: ignore[attr-defined]


async def test_a_handlers_own_timeout_is_not_the_clients_deadline(served: Served, grpc_call: Any) -> None:
    async def handler(request: Any, call: Any) -> Any:
        raise TimeoutError

    call = grpc_call(LIVE, timeout_seconds=60)
    GrpcRouter(served, {LIVE: handler}).on_call(call)
    await settle()
    assert call.finished[0] == 13


@pytest.mark.parametrize("seconds", [-1, 0, 0.01])
async def test_deadline(served: Served, grpc_call: Any, seconds: float) -> None:
    cancelled = []

    async def handler(request: Any, call: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    call = grpc_call(LIVE, timeout_seconds=seconds)
    GrpcRouter(served, {LIVE: handler}).on_call(call)
    async with asyncio.timeout(5):
        while call.finished is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert call.finished == (4, "Deadline Exceeded")
    assert cancelled == ([True] if seconds > 0 else [])


async def test_a_cancelled_call_cancels_its_handler_and_sends_nothing(served: Served, grpc_call: Any) -> None:
    ended = []

    async def handler(request: Any, call: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    call = grpc_call(LIVE)
    GrpcRouter(served, {LIVE: handler}).on_call(call)
    await settle()
    call.cancel()
    await settle()
    assert ended == ["cancelled"]
    assert call.finished is None
    assert call.sent == []


async def test_cancelled_before_its_first_step(served: Served, grpc_call: Any) -> None:
    call = grpc_call(LIVE)
    GrpcRouter(served).on_call(call)
    call.cancel()
    await settle()
    assert call.finished is None


async def test_a_stream_sends_each_message_and_then_ok(served: Served, grpc_call: Any) -> None:
    async def handler(request: Any, call: Any) -> Any:
        for status in (1, 2, 1):
            yield call.response(status=status)

    call = grpc_call(WATCH)
    GrpcRouter(served, {WATCH: handler}).on_call(call)
    await settle()
    response = protos.message_class("grpc.health.v1.HealthCheckResponse")
    assert [response.FromString(m).status for m in call.sent] == [1, 2, 1]
    assert call.finished == (0, "")


async def test_watch_tells_changes_and_ends_with_the_server(served: Served, grpc_call: Any) -> None:
    router = GrpcRouter(served)
    call = grpc_call(WATCH)
    router.on_call(call)
    await settle()
    served.ready.set(False)
    await settle()
    served.ready.set(False)  # no change
    await settle()
    response = protos.message_class("grpc.health.v1.HealthCheckResponse")
    assert [response.FromString(m).status for m in call.sent] == [1, 2]
    await router.close()
    assert call.finished == (14, "the server is shutting down")


async def test_close_answers_calls_that_never_started_and_refuses_new_ones(
    served: Served, grpc_call: Any
) -> None:
    router = GrpcRouter(served)
    early, late = grpc_call(LIVE), grpc_call(LIVE)
    router.on_call(early)
    await router.close()
    await settle()
    router.on_call(late)
    assert early.finished[0] == late.finished[0] == 14
