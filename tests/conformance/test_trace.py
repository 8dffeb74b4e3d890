"""Traces of requests, switched on and off by request: the real tritonclients, and the files that are written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_repository import identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Infer, Refused, Rest, fp32, grpc_call, grpc_infer

KINDS = ("grpc", "http", "grpc.aio", "http.aio")
OFF = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0"}
CLEAR: dict[str, Any] = {"trace_level": None, "trace_rate": None, "trace_count": None, "log_frequency": None}
STAGES = ["REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_END", "REQUEST_END"]


class Traced:
    """A server with a trace file, and what a test does to it."""

    def __init__(self, server: RunningServer, file: Path) -> None:
        self.server = server
        self.file = file
        self.rest = Rest(server.http)
        self.channel = grpc.insecure_channel(server.grpc)

    def change(self, model: str = "", **settings: Any) -> dict[str, Any]:
        path = f"/v2/models/{model}/trace/setting" if model else "/v2/trace/setting"
        status, answer = self.rest.post(path, json.dumps(settings).encode())
        assert status == 200, answer
        return dict(answer)

    def now(self, model: str = "") -> dict[str, Any]:
        path = f"/v2/models/{model}/trace/setting" if model else "/v2/trace/setting"
        status, _, content = self.rest.ask("GET", path)
        assert status == 200
        return dict(json.loads(content))

    def ask(self, model: str, request_id: str = "", rest: bool = False) -> None:
        request = Infer(model, (fp32("INPUT0", 1, 4),), id=request_id)
        if rest:
            assert self.rest.infer(request)[0] == 200
        else:
            assert not isinstance(grpc_infer(self.channel, request), Refused)

    def traces(self, **wanted: str) -> list[dict[str, Any]]:
        """Of the file, those with these fields."""
        found = json.loads(self.file.read_text()) if self.file.exists() else []
        return [t for t in found if all(t.get(key) == value for key, value in wanted.items())]


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    folder = tmp_path_factory.mktemp("traced")
    for name in ("echo", "other"):
        identity(folder / "models", name, [("FP32", [4])], max_batch=8)
    file = folder / "trace.json"
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    with RunningServer(
        folder / "models", folder, "--trace-file", str(file), "--io-threads", threads
    ) as running:
        yield Traced(running, file)
        running.signal()
        assert running.wait() == 0, running.log()


@pytest.fixture(autouse=True)
def all_off_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "traced" in request.fixturenames:
        used: Traced = request.getfixturevalue("traced")
        for model in ("", "echo", "other"):
            used.change(model, **CLEAR)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def plain(client: Any, answer: Any) -> dict[str, Any]:
    """Settings as REST has them, whichever protocol they came by."""
    if not client.is_grpc:
        return dict(answer)
    found = {name: setting.get("value", [""]) for name, setting in answer["settings"].items()}
    return {name: values if name == "trace_level" else values[0] for name, values in found.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_settings_with_tritonclient(traced: Traced, client_class: Any, kind: str) -> None:
    client = client_class(kind, traced.server)
    fixed = {"trace_file": str(traced.file), "trace_mode": "triton"}
    try:
        assert plain(client, client.json("get_trace_settings")) == {**OFF, **fixed}
        change = {"trace_level": ["TIMESTAMPS"], "trace_rate": "5", "trace_count": "7", "log_frequency": "3"}
        answer = client.json("update_trace_settings", "echo", change)
        assert plain(client, answer) == {**change, **fixed}
        assert plain(client, client.json("get_trace_settings", "other")) == {**OFF, **fixed}
        answer = client.json("update_trace_settings", "", {"trace_rate": "9"})
        assert plain(client, answer) == {**OFF, **fixed, "trace_rate": "9"}
        # What the model set itself stays; what it takes back follows the setting for all.
        answer = client.json("update_trace_settings", "echo", {"trace_rate": None, "trace_level": None})
        assert plain(client, answer) == {**change, **fixed, "trace_level": ["OFF"], "trace_rate": "9"}
        client.call("update_trace_settings", "echo", CLEAR)
        client.call("update_trace_settings", "", CLEAR)
        assert plain(client, client.json("get_trace_settings", "echo")) == {**OFF, **fixed}
        with pytest.raises(
            Exception, match="trace file location can not be updated through network protocol"
        ):
            client.call("update_trace_settings", "", {"trace_file": "/tmp/x"})
        with pytest.raises(Exception, match="TENSORS is not supported yet"):
            client.call("update_trace_settings", "", {"trace_level": ["TENSORS"]})
        with pytest.raises(Exception, match="'no_such_model' is not found"):
            client.call("get_trace_settings", "no_such_model")
    finally:
        client.close()


@pytest.mark.parametrize("rest", [False, True])
def test_a_traced_request_is_in_the_file(traced: Traced, rest: bool) -> None:
    name = f"traced-{rest}"
    traced.change(trace_level=["TIMESTAMPS"], trace_rate="1")
    traced.ask("echo", name, rest=rest)
    wait_until(lambda: bool(traced.traces(request_id=name)))
    (trace,) = traced.traces(request_id=name)
    assert (trace["model_name"], str(trace["model_version"])) == ("echo", "1")
    times = {t["name"]: t["ns"] for t in trace["timestamps"]}
    assert [stage for stage in STAGES if stage not in times] == []
    in_order = [times[stage] for stage in STAGES]
    assert in_order == sorted(in_order)
    assert times["REQUEST_END"] - times["REQUEST_START"] < 5e9
    # What Triton's own tools look for to tell the front ends apart.
    assert any(t.startswith("HTTP_RECV_START" if rest else "GRPC_WAITREAD_START") for t in times), times


def test_one_of_so_many_until_the_count_is_reached(traced: Traced) -> None:
    before = len(traced.traces(model_name="other"))
    traced.change("other", trace_level=["TIMESTAMPS"], trace_rate="4", trace_count="3")
    for _ in range(40):
        traced.ask("other")
    traced.change("echo", trace_level=["TIMESTAMPS"], trace_rate="1")
    traced.ask("echo", "after the others")
    wait_until(lambda: bool(traced.traces(request_id="after the others")))
    assert len(traced.traces(model_name="other")) - before == 3


def test_nothing_is_traced_when_it_is_off(traced: Traced) -> None:
    traced.change("other", trace_level=["TIMESTAMPS"], trace_rate="1")
    traced.change(trace_level=["OFF"])
    traced.ask("echo", "not this")
    traced.ask("other", "but this")
    wait_until(lambda: bool(traced.traces(request_id="but this")))
    assert traced.traces(request_id="not this") == []


def test_numbered_files(traced: Traced) -> None:
    traced.change("other", trace_level=["TIMESTAMPS"], trace_rate="1", log_frequency="5")
    for number in range(10):
        traced.ask("other", f"numbered {number}")

    def numbered() -> list[Path]:
        return sorted(traced.file.parent.glob("trace.json.*"))

    wait_until(lambda: len(numbered()) >= 2)
    last = [json.loads(path.read_text()) for path in numbered()[-2:]]
    assert [[t["request_id"] for t in traces] for traces in last] == [
        [f"numbered {n}" for n in range(5)],
        [f"numbered {n}" for n in range(5, 10)],
    ]
    assert not any("numbered" in t.get("request_id", "") for t in traced.traces())


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b'{"trace_rate":"x"}', 400, "Unable to parse 'trace_rate', got: x"),
        (b'{"trace_rate":"0"}', 400, "'trace_rate', value is out of range [ 1, 2147483647 ], got: 0"),
        (b'{"trace_rate":"1"}', 200, ""),
        (b'{"trace_rate":2147483647}', 200, ""),
        (b'{"trace_rate":"2147483648"}', 400, "out of range"),
        (b'{"trace_count":"-1"}', 200, ""),
        (b'{"trace_count":"-2"}', 400, "'trace_count', value is out of range [ -1, "),
        (b'{"log_frequency":"10000"}', 200, ""),
        (b'{"log_frequency":"10001"}', 400, "'log_frequency', value is out of range [ 0, 10000 ]"),
        (b'{"trace_rate":["1","2"]}', 400, "expect only 1 value for 'trace_rate'"),
        (b'{"trace_rate":true}', 400, "trace_rate"),
        (b'{"trace_level":["OFF","TIMESTAMPS"]}', 400, "Expect only one trace level 'OFF' is specified"),
        (b'{"trace_level":["SOME"]}', 400, "trace_level: got 'SOME'"),
        (b'{"trace_level":["TIMESTAMPS","TENSORS"]}', 501, "TENSORS"),
        (b'{"trace_level":{}}', 400, "trace_level"),
        (b'{"trace_mode":"opentelemetry"}', 501, "opentelemetry"),
        (b'{"trace_mode":"triton"}', 200, ""),
        (b'{"trace_speed":"1"}', 400, "unknown trace setting 'trace_speed'"),
        (b'{"trace_rate":"7","trace_file":"/etc/passwd"}', 501, "trace file location"),
        (b'{"trace_rate":"7","trace_count":"x"}', 400, "trace_count"),
    ],
)
def test_bad_input(traced: Traced, body: bytes, status: int, words: str) -> None:
    before = traced.now()
    got, answered = traced.rest.post("/v2/trace/setting", body)
    assert got == status, answered
    assert words in json.dumps(answered)
    if got != 200:
        assert traced.now() == before


def test_bad_input_over_grpc(traced: Traced) -> None:
    value = service_pb2.TraceSettingRequest.SettingValue
    for settings, model, code, words in (
        ({"trace_rate": value(value=["x"])}, "", 3, "Unable to parse 'trace_rate', got: x"),
        ({"trace_speed": value(value=["1"])}, "", 3, "unknown trace setting"),
        ({"trace_file": value(value=["/x"])}, "", 12, "trace file location"),
        ({}, "no_such_model", 5, "'no_such_model' is not found"),
        ({}, "../x", 3, "is no model name"),
    ):
        request = service_pb2.TraceSettingRequest(settings=settings, model_name=model).SerializeToString()
        answer = grpc_call(traced.channel, SERVICE + "TraceSetting", request)
        assert isinstance(answer, Refused)
        assert (answer.code, words in answer.message) == (code, True), answer


def test_without_a_file_nothing_can_be_traced(server: RunningServer) -> None:
    rest = Rest(server.http)
    status, answer = rest.post("/v2/trace/setting", b'{"trace_level":["TIMESTAMPS"]}')
    assert status == 400
    assert "Attempting to set invalid trace setting :trace file name is not given" in answer["error"]
    assert rest.post("/v2/trace/setting", b'{"trace_rate":"3"}')[0] == 200
    assert rest.post("/v2/trace/setting", b'{"trace_rate":null}')[1]["trace_rate"] == "1000"
    rest.close()


def test_what_is_left_is_written_at_the_end(tmp_path: Path) -> None:
    identity(tmp_path / "models", "echo", [("FP32", [4])], max_batch=8)
    file = tmp_path / "trace.json"
    arguments = ("--trace-file", str(file), "--trace-level", "TIMESTAMPS", "--trace-rate", "1")
    with RunningServer(tmp_path / "models", tmp_path, *arguments, "--trace-count", "2") as running:
        traced = Traced(running, file)
        assert traced.now() == {
            **OFF,
            "trace_level": ["TIMESTAMPS"],
            "trace_rate": "1",
            "trace_count": "2",
            "trace_file": str(file),
            "trace_mode": "triton",
        }
        for _ in range(5):
            traced.ask("echo")
        running.signal()
        assert running.wait() == 0, running.log()
    assert len(traced.traces(model_name="echo")) == 2
