"""Priorities and queue policies of config.pbtxt as clients see them, with Triton's words."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from model_repository import identity
from running_server import RunningServer

RUN_S = 0.5
POLICIES = """
dynamic_batching {
  priority_levels: 4
  default_priority_level: 2
  priority_queue_policy { key: 1 value { default_timeout_microseconds: 60000000 allow_timeout_override: true } }
  priority_queue_policy { key: 2 value { max_queue_size: 2 } }
  priority_queue_policy { key: 3 value { default_timeout_microseconds: 60000000 allow_timeout_override: true
                                         timeout_action: %s } }
  priority_queue_policy { key: 4 value { default_timeout_microseconds: 50000 } }
}
"""
ROW = {"INPUT0": ("FP32", np.ones((1, 4), np.float32))}


@pytest.fixture(scope="module")
def policed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Models that take RUN_S for each request, one at a time, with a policy for each level."""
    folder = tmp_path_factory.mktemp("policies")
    for name, action in (("rejects", "REJECT"), ("delays", "DELAY")):
        identity(
            folder / "models", name, [("FP32", [4])], max_batch=1, delay_s=RUN_S, extra=POLICIES % action
        )
    with RunningServer(folder / "models", folder) as running:
        yield running


class Caller:
    """Requests from threads of their own, each with its client; remembers in which order answers came and what they said."""

    def __init__(self, make: Callable[[], Any], model: str) -> None:
        self.model = model
        self._idle = [make() for _ in range(5)]  # before the first request runs: connecting takes time
        self.ended: list[tuple[str, str]] = []  # (name of the request, error or "")
        self._threads: list[threading.Thread] = []
        self.seconds: dict[str, float] = {}

    def send(self, name: str, pause_s: float = 0.03, **kwargs: Any) -> None:
        """`pause_s`: afterwards, so that requests arrive in the order in which they are sent."""
        client = self._idle.pop()

        def run() -> None:
            began = time.monotonic()
            try:
                client.infer(self.model, ROW, **kwargs)
                error = ""
            except client.module.InferenceServerException as e:
                error = str(e.message())
            self.seconds[name] = time.monotonic() - began
            self.ended.append((name, error))
            client.close()

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        time.sleep(pause_s)

    def wait(self) -> None:
        for thread in self._threads:
            thread.join()
        while self._idle:
            self._idle.pop().close()

    def error(self, name: str) -> str:
        return dict(self.ended)[name]

    def served(self) -> list[str]:
        return [name for name, error in self.ended if not error]


@pytest.fixture(params=["grpc", "http"])
def caller(
    request: pytest.FixtureRequest, policed: RunningServer, client_class: Callable[..., Any]
) -> Iterator[Callable[[str], Caller]]:
    callers: list[Caller] = []

    def make(model: str) -> Caller:
        callers.append(Caller(lambda: client_class(request.param, policed), model))
        return callers[-1]

    yield make
    for each in callers:
        each.wait()


def test_high_priority_overtakes_and_beyond_the_levels_is_the_default(
    caller: Callable[[str], Caller],
) -> None:
    calls = caller("delays")
    calls.send("running")
    calls.send("beyond", priority=9)  # as 2
    calls.send("default")
    calls.send("high", priority=1)
    calls.wait()
    assert calls.served() == ["running", "high", "beyond", "default"], calls.ended


def test_the_limit_of_a_level_refuses_only_that_level(caller: Callable[[str], Caller]) -> None:
    calls = caller("delays")
    calls.send("running")
    for name in ("first", "second", "third"):
        calls.send(name, priority=2)
    calls.send("high", priority=1)
    calls.wait()
    assert "Exceeds maximum queue size" in calls.error("third")
    assert calls.seconds["third"] < RUN_S
    assert sorted(calls.served()) == ["first", "high", "running", "second"]


def test_a_policys_timeout_rejects_while_the_instance_is_busy(caller: Callable[[str], Caller]) -> None:
    calls = caller("rejects")
    calls.send("running")
    calls.send("by itself", priority=4)
    calls.send("lowered", priority=3, timeout=50_000)
    calls.wait()
    for name in ("by itself", "lowered"):
        assert "Request timeout expired" in calls.error(name)
        assert calls.seconds[name] < RUN_S


def test_a_delayed_request_is_served_after_the_rest_of_its_level(caller: Callable[[str], Caller]) -> None:
    calls = caller("delays")
    calls.send("running")
    calls.send("late", priority=3, timeout=50_000)
    calls.send("in time", priority=3)
    calls.send("lower", priority=4, timeout=1)  # would be next, but has no DELAY
    calls.wait()
    assert calls.served() == ["running", "in time", "late"]
    assert "Request timeout expired" in calls.error("lower")


def test_a_requests_timeout_lowers_where_the_policy_lets_it(caller: Callable[[str], Caller]) -> None:
    calls = caller("delays")
    calls.send("running")
    calls.send("lowered", priority=1, timeout=40_000)
    calls.send("ignored", priority=2, timeout=40_000)
    calls.wait()
    assert "Request timeout expired" in calls.error("lowered")
    assert calls.error("ignored") == "", "no allow_timeout_override: the parameter is without effect"


def test_refusals_are_counted_and_nothing_expired_ran(policed: RunningServer) -> None:
    with urllib.request.urlopen(f"http://{policed.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    value = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}
    labels = 'model="delays",version="1"'
    refused = value[f'fastserve_requests_rejected_total{{{labels},reason="queue_full"}}']
    timed_out = value[f'fastserve_requests_rejected_total{{{labels},reason="queue_timeout"}}']
    assert f'fastserve_requests_rejected_total{{{labels},reason="too_late"}}' in value
    assert value[f'nv_inference_request_failure{{{labels},reason="REJECTED"}}'] == refused + timed_out
    assert value[f"fastserve_requests_expired_executed_total{{{labels}}}"] == 0


def test_503_says_when_to_come_back(policed: RunningServer, client_class: Callable[..., Any]) -> None:
    calls = Caller(lambda: client_class("http", policed), "rejects")
    calls.send("running")
    body = b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}],"parameters":{"priority":4}}'
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{policed.http}/v2/models/rejects/infer", body)
    assert refused.value.code == 503
    assert int(refused.value.headers["retry-after"]) >= 1
    calls.wait()
