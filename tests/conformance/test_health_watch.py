"""grpc.health.v1.Health/Watch with many watchers that come and go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from running_server import RunningServer

WATCHERS = 300


def open_calls(server: RunningServer) -> int:
    return int(server.scrape()["fastserve_streams"])


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_watchers_that_cancel_or_lose_their_connection_leave_nothing_behind(server: RunningServer) -> None:
    wait_until(lambda: open_calls(server) == 0)  # of the tests before
    with grpc.insecure_channel(server.grpc) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="no.such.Service")  # not looked at
        watches = [stub.Watch(request, timeout=60) for _ in range(WATCHERS)]
        assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.SERVING}
        assert open_calls(server) == WATCHERS
        for watch in watches[::2]:
            watch.cancel()
        wait_until(lambda: open_calls(server) == WATCHERS // 2)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1
    wait_until(lambda: open_calls(server) == 0)  # the rest went with their connection


def test_a_deadline_ends_a_watch(channel: grpc.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=0.3)
    assert next(watch).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        next(watch)  # there is no second message without a change
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_list_names_the_whole_server(channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=10)
    assert {name: status.status for name, status in answer.statuses.items()} == {"": 1}


# --- one model


@pytest.mark.parametrize(
    ("service", "status"),
    [
        ("models/mlp", 1),
        ("models/versions/versions/3", 1),
        ("models/broken", 2),
        ("models/broken/versions/1", 2),
        ("models", 1),  # a service that nobody knows: the server, as Triton has it
        ("inference.GRPCInferenceService", 1),
    ],
)
def test_check_of_a_model(channel: grpc.Channel, service: str, status: int) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status == status
    assert next(stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)).status == status


@pytest.mark.parametrize("service", ["models/no_such", "models/mlp/versions/9"])
def test_check_of_a_model_that_is_not_known(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert next(stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=10)).status == 3


@pytest.mark.parametrize("service", ["models/", "models/..", "models/a b", "models/mlp/versions/-1"])
def test_check_of_what_is_no_model_name(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
