"""A queue that is full, and what the metrics port says afterwards."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from model_repository import SLOW_S, TIGHT_QUEUE
from wire import Infer, Refused, Rest, fp32, grpc_infer

REQUEST = Infer("tight", (fp32("INPUT0", 1, 4),), id="t")
OFFERED = 10


def over_grpc(server: Any) -> tuple[bool, int, str, float]:
    started = time.monotonic()
    with grpc.insecure_channel(server.grpc) as channel:
        answer = grpc_infer(channel, REQUEST)
        taken = time.monotonic() - started
        refused = isinstance(answer, Refused)
        return not refused, answer.code if refused else 0, answer.message if refused else "", taken


def over_rest(server: Any) -> tuple[bool, int, str, float]:
    started = time.monotonic()
    rest = Rest(server.http)
    status, body = rest.infer(REQUEST)
    taken = time.monotonic() - started
    rest.close()
    return status == 200, status, body.get("error", ""), taken


def pending(server: Any) -> float:
    return float(server.scrape()['nv_inference_pending_request_count{model="tight",version="1"}'])


@pytest.mark.parametrize(("ask", "code"), [(over_grpc, 14), (over_rest, 503)], ids=["grpc", "rest"])
def test_a_full_queue_refuses_at_once_and_serves_what_it_took(server: Any, ask: Any, code: int) -> None:
    before = server.scrape()
    labels = 'model="tight",version="1"'
    with ThreadPoolExecutor(OFFERED) as pool:
        first = pool.submit(ask, server)
        # On the device, so that the queue is empty when the burst comes.
        while server.scrape()[f"fastserve_requests_in_flight{{{labels}}}"] != 1 or pending(server) != 0:
            time.sleep(0.005)
        burst = [pool.submit(ask, server) for _ in range(OFFERED - 1)]
        answers = [asked.result() for asked in (first, *burst)]
    served = [answer for answer in answers if answer[0]]
    refused = [answer for answer in answers if not answer[0]]
    # One more where this machine is so busy that the first is done before the burst is complete.
    assert TIGHT_QUEUE + 1 <= len(served) <= TIGHT_QUEUE + 2
    assert {answer[1] for answer in refused} == {code}
    assert all("Exceeds maximum queue size" in answer[2] for answer in refused)
    assert max(answer[3] for answer in refused) < SLOW_S
    assert ask(server)[0]  # and the next one is served
    grown = {name: value - before.get(name, 0) for name, value in server.scrape().items()}
    assert grown[f"nv_inference_request_success{{{labels}}}"] == len(served) + 1
    assert grown[f'nv_inference_request_failure{{{labels},reason="REJECTED"}}'] == len(refused)


@pytest.mark.parametrize("path", ["/", "/v2/health/live", "/metrics/"])
def test_the_metrics_port_has_nothing_else(server: Any, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.metrics}{path}", timeout=5)
    assert caught.value.code == 404
    assert json.loads(caught.value.read()) == {"error": "Not Found"}
