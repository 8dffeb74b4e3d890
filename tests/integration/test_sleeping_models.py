"""Models that sleep until somebody asks, with a real server and real clients: no request to one is lost."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc as grpcio
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
import tritonclient.http.aio as http_aio
from process_figures import wait_until
from running_server import RunningServer
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException
from wide_model import LAYERS, WIDE, write_wide

MB = 1 << 20
GIVEN = np.ones((1, WIDE), np.float32)
ON_DEMAND = ("--load-on-demand",)
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_wide(tmp_path / "wide", name)
    return tmp_path / "wide"


def given(module: Any, **how: Any) -> Any:
    tensor = module.InferInput("x", list(GIVEN.shape), "FP32")
    tensor.set_data_from_numpy(GIVEN, **how)
    return [tensor]


def ask(server: RunningServer, model: str, way: str) -> None:
    """Answered with what was sent, or raises."""
    if way == "grpc":
        with grpc.InferenceServerClient(server.grpc) as client:
            answer = client.infer(model, given(grpc)).as_numpy("y")
    elif way == "grpc aio":
        answer = asyncio.run(ask_aio(grpc_aio, server.grpc, model, given(grpc)))
    elif way == "http aio":
        answer = asyncio.run(ask_aio(http_aio, server.http, model, given(http)))
    else:
        client = http.InferenceServerClient(server.http, network_timeout=60)
        answer = client.infer(model, given(http, binary_data=way == "http binary")).as_numpy("y")
        client.close()
    np.testing.assert_array_equal(answer, GIVEN)


async def ask_aio(module: Any, address: str, model: str, inputs: Any) -> Any:
    async with module.InferenceServerClient(address) as client:
        return (await client.infer(model, inputs)).as_numpy("y")


def ready(server: RunningServer) -> set[str]:
    listed = http.InferenceServerClient(server.http).get_model_repository_index()
    return {entry["name"] for entry in listed if entry["state"] == "READY"}


def rest(server: RunningServer, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """(status, headers, body)"""
    request = urllib.request.Request(f"http://{server.http}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize("way", ["grpc", "grpc aio", "http json", "http binary", "http aio"])
def test_who_asks_first_is_held_and_answered(start: Any, wide: Path, way: str) -> None:
    server = start(wide, *ON_DEMAND)
    assert ready(server) == set()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: ask(server, "ab"[n % 2], way), range(8)))
    assert ready(server) == {"a", "b"}
    figures = server.scrape()
    assert figures["fastserve_held_requests"] == figures["fastserve_held_request_bytes"] == 0
    assert figures["fastserve_held_requests_total"] >= 2
    assert figures["fastserve_model_wakes_total"] == 2
    assert figures["fastserve_sleeping_models"] == 1
    assert figures['fastserve_model_memory_bytes{model="a",version="1"}'] >= 0


def test_metadata_says_that_it_sleeps_and_wakes_nobody(start: Any, wide: Path) -> None:
    server = start(wide, *ON_DEMAND)
    status, _, body = rest(server, "/v2/models/a")
    assert (status, "model 'a' is asleep: it is loaded when it is asked for" in body.decode()) == (503, True)
    assert rest(server, "/v2/models/a/ready")[0] != 200
    assert rest(server, "/v2/models/nobody")[0] == 404
    with (
        grpc.InferenceServerClient(server.grpc) as client,
        pytest.raises(InferenceServerException) as refused,
    ):
        client.get_model_metadata("a")
    assert refused.value.status() == "StatusCode.UNAVAILABLE"
    assert "asleep" in refused.value.message()
    assert server.scrape()["fastserve_model_wakes_total"] == 0
    assert ready(server) == set()


def curl(server: RunningServer, path: str, body: bytes, *headers: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body)"""
    options = [option for header in headers for option in ("-H", header)]
    command = ["curl", "-s", "-i", "--max-time", "60", "--data-binary", "@-", *options]
    command += [f"http://{server.http}{path}"]
    answer = subprocess.run(command, input=body, capture_output=True, check=True).stdout
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), fields, content


RAW_HEADER = "Inference-Header-Content-Length: 0"


def test_a_raw_binary_body_is_held_as_well(start: Any, wide: Path) -> None:
    """Its input is not known before the model is loaded: completed then."""
    server = start(wide, *ON_DEMAND)
    for _ in range(2):  # asleep, then awake
        status, headers, body = curl(server, "/v2/models/a/infer", GIVEN.tobytes(), RAW_HEADER)
        assert status == 200, body
        json_bytes = int(headers["inference-header-content-length"])
        assert json.loads(body[:json_bytes])["outputs"][0]["name"] == "y"
        np.testing.assert_array_equal(np.frombuffer(body[json_bytes:], np.float32), GIVEN[0])
    figures = server.scrape()
    assert figures["fastserve_held_requests_total"] == 1
    assert figures["fastserve_asleep_requests_refused_total"] == 0
    status, _, body = curl(server, "/v2/models/b/infer", GIVEN.tobytes()[:-1], RAW_HEADER)
    assert (status, b"4095 bytes" in body) == (400, True), body


@pytest.mark.parametrize("way", ["grpc", "http json", "http raw"])
def test_by_policy_it_is_refused_and_loaded(start: Any, wide: Path, way: str) -> None:
    server = start(wide, *ON_DEMAND, "--on-asleep", "refuse")
    if way == "grpc":
        with pytest.raises(
            InferenceServerException, match="model 'a' is asleep and is loaded now"
        ) as refused:
            ask(server, "a", way)
        assert refused.value.status() == "StatusCode.UNAVAILABLE"
    else:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, WIDE], "data": GIVEN[0].tolist()}
        raw = way == "http raw"
        sent = GIVEN.tobytes() if raw else json.dumps({"inputs": [tensor]}).encode()
        status, headers, body = curl(server, "/v2/models/a/infer", sent, *([RAW_HEADER] if raw else []))
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["error"].endswith("model 'a' is asleep and is loaded now, try again in 1 s")
    wait_until(lambda: ready(server) == {"a"}, "a is loaded")
    ask(server, "a", way)
    assert server.scrape()["fastserve_asleep_requests_refused_total"] >= 1


SLOW = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(1.5)
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""
SLOW_CONFIG = f"""
backend: "python"
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1, {WIDE} ] }}
output {{ name: "y" data_type: TYPE_FP32 dims: [ 1, {WIDE} ] }}
"""


def refused_after_s(server: RunningServer, way: str) -> int:
    """Seconds after which to try again, as a request to "slow" is told."""
    if way == "curl":
        status, headers, body = curl(server, "/v2/models/slow/infer", GIVEN.tobytes(), RAW_HEADER)
        assert status == 503, body
        return int(headers["retry-after"])
    request = service_pb2.ModelInferRequest(model_name="slow", raw_input_contents=[GIVEN.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=GIVEN.shape)
    with grpcio.insecure_channel(server.grpc) as channel, pytest.raises(grpcio.RpcError) as refused:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert refused.value.code() == grpcio.StatusCode.UNAVAILABLE
    told = dict(refused.value.trailing_metadata())
    return int(told["grpc-retry-pushback-ms"]) // 1000


@pytest.mark.parametrize("way", ["curl", "grpcio"])
def test_the_time_to_try_again_is_that_of_its_last_load(start: Any, tmp_path: Path, way: str) -> None:
    (tmp_path / "models/slow/1").mkdir(parents=True)
    (tmp_path / "models/slow/1/model.py").write_text(SLOW)
    (tmp_path / "models/slow/config.pbtxt").write_text(SLOW_CONFIG)
    flags = (*ON_DEMAND, "--on-asleep", "refuse", "--unload-idle-secs", "1", "--allow-python-models")
    server = start(tmp_path / "models", *flags)
    assert refused_after_s(server, way) == 1  # nobody knows yet
    wait_until(lambda: ready(server) == {"slow"}, "it is loaded", 60)
    wait_until(lambda: ready(server) == set(), "it sleeps again", 60)
    took = re.findall(r"slow version 1 is ready \(([0-9.]+) s\)", server.log())
    asked_s = refused_after_s(server, way)
    assert float(took[-1]) <= asked_s <= float(took[-1]) + 1.1
    assert asked_s >= 2


def measured(start: Any, wide: Path) -> list[int]:
    """Bytes that each of them takes, as the server measures it."""
    server = start(wide, "--loader-threads", "1")
    sizes = [v for k, v in server.scrape().items() if k.startswith("fastserve_model_memory_bytes")]
    assert len(sizes) == 3
    server.close()
    return [max(int(size), LAYERS * WIDE * WIDE * 4) for size in sizes]


def test_a_budget_for_two_of_three(start: Any, wide: Path) -> None:
    sizes = measured(start, wide)
    budget = sum(sizes) - 2 * min(sizes) // 3
    server = start(wide, "--loader-threads", "1", "--memory-budget-bytes", str(budget))
    wait_until(lambda: len(ready(server)) == 2, "one sleeps")
    for turn in range(9):
        ask(server, "abc"[turn % 3], ("grpc", "http binary")[turn % 2])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: ask(server, "abc"[n % 3], "grpc"), range(12)))
    wait_until(lambda: 1 <= len(ready(server)) <= 2, "two at most")
    assert server.scrape()["fastserve_model_wakes_total"] >= 1
    assert "cannot decide" not in server.log()


def test_an_idle_model_sleeps_and_is_woken(start: Any, wide: Path) -> None:
    server = start(wide, "--unload-idle-secs", "1")
    wait_until(lambda: ready(server) == set(), "all sleep")
    ask(server, "b", "grpc")


def test_a_pinned_model_never_sleeps(start: Any, wide: Path, tmp_path: Path) -> None:
    entries = [{"name": n, "path": str(wide / n), "pinned": n == "a"} for n in "abc"]
    listing = tmp_path / "models.yaml"
    listing.write_text(json.dumps({"models": entries}))
    (tmp_path / "none").mkdir()
    server = start(tmp_path / "none", "--models-file", str(listing), *ON_DEMAND, "--unload-idle-secs", "1")
    ask(server, "b", "grpc")
    wait_until(lambda: ready(server) == {"a"}, "b sleeps again")
    time.sleep(2)
    assert ready(server) == {"a"}


def test_a_sleeping_model_can_be_unloaded(start: Any, wide: Path) -> None:
    server = start(wide, *EXPLICIT, *ON_DEMAND)
    client = http.InferenceServerClient(server.http)
    client.unload_model("a")
    wait_until(lambda: rest(server, "/v2/models/a")[0] == 404, "a is forgotten")
    with pytest.raises(InferenceServerException) as refused:
        ask(server, "a", "grpc")
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    ask(server, "b", "grpc")
    client.load_model("a")
    ask(server, "a", "grpc")


def test_the_end_answers_who_is_held(start: Any, wide: Path) -> None:
    """Room for one, which stays for 2 s: who asks for the other is held when the server is told to end."""
    server = start(wide, "--memory-budget-bytes", str(18 * MB), *ON_DEMAND)
    ask(server, "a", "grpc")

    def refused(_: int) -> str:
        with pytest.raises(InferenceServerException) as error:
            ask(server, "b", "grpc")
        return f"{error.value.status()} {error.value.message().rpartition('] ')[2]}"

    with ThreadPoolExecutor(5) as pool:
        answers = pool.map(refused, range(5))
        wait_until(lambda: server.scrape()["fastserve_held_requests"] == 5, "all are held", 1.8)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert list(answers) == ["StatusCode.UNAVAILABLE the server is shutting down"] * 5
