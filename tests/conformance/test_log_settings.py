"""What is logged, changed by request: the real tritonclients, and what then stands in the log."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from model_repository import identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Refused, Rest, grpc_call

KINDS = ("grpc", "http", "grpc.aio", "http.aio")
DEFAULT = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("logged") / "models"
    identity(root, "echo", [("FP32", [4])])
    (root / "broken").mkdir()
    return root


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("log_settings")
    arguments = ("--model-control-mode", "explicit", "--log-format", "human")
    with RunningServer(repository, folder, *arguments) as running:
        yield running


@pytest.fixture
def rest(logged: RunningServer) -> Iterator[Rest]:
    opened = Rest(logged.http)
    yield opened
    opened.post("/v2/logging", json.dumps({k: v for k, v in DEFAULT.items() if k != "log_file"}).encode())
    opened.close()


def settings(client: Any, answer: Any) -> dict[str, Any]:
    if not client.is_grpc:
        return dict(answer)
    return {name: next(iter(value.values()), "") for name, value in answer["settings"].items()}


@pytest.mark.parametrize("kind", KINDS)
def test_read_and_change_with_tritonclient(
    logged: RunningServer, client_class: Any, kind: str, rest: Rest
) -> None:
    client = client_class(kind, logged)
    try:
        assert settings(client, client.json("get_log_settings")) == DEFAULT
        change = {"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"}
        answer = settings(client, client.json("update_log_settings", change))
        assert answer == {**DEFAULT, **change}
        assert settings(client, client.json("get_log_settings")) == {**DEFAULT, **change}
        with pytest.raises(Exception, match="log file location can not be updated through network protocol"):
            client.call("update_log_settings", {"log_file": "/tmp/x", "log_error": False})
        with pytest.raises(Exception, match="invalid argument for log_format, got: xml"):
            client.call("update_log_settings", {"log_error": False, "log_format": "xml"})
        assert settings(client, client.json("get_log_settings")) == {**DEFAULT, **change}  # all or nothing
        client.call("update_log_settings", {"log_info": None})
        assert settings(client, client.json("get_log_settings"))["log_info"] is False
    finally:
        client.close()


def test_what_is_switched_off_is_not_written(logged: RunningServer, rest: Rest) -> None:
    def lines_of_a_load(model: str, **change: Any) -> str:
        assert rest.post("/v2/logging", json.dumps(change).encode())[0] == 200
        before = len(logged.log())
        rest.post("/v2/repository/models/echo/unload", b"")
        rest.post(f"/v2/repository/models/{model}/load", b"")
        return logged.log()[before:]

    assert "echo version 1 is ready" in lines_of_a_load("echo", log_info=True)
    assert lines_of_a_load("echo", log_info=False) == ""
    assert "no version folder" in lines_of_a_load("broken")
    assert lines_of_a_load("broken", log_error=False) == ""
    assert "no version folder" in lines_of_a_load("broken", log_error=True)
    assert "echo version 1 is ready" in lines_of_a_load("echo", log_info=True)


def test_the_format_of_times(logged: RunningServer, rest: Rest) -> None:
    for wanted, pattern in (
        ("ISO8601", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO"),
        ("default", r"\d\d:\d\d:\d\d\.\d{3} INFO"),
    ):
        rest.post("/v2/logging", json.dumps({"log_format": wanted}).encode())
        before = len(logged.log())
        rest.post("/v2/repository/models/echo/unload", b"")
        rest.post("/v2/repository/models/echo/load", b"")
        lines = logged.log()[before:].splitlines()
        assert lines
        assert all(re.match(pattern, line) for line in lines), lines


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b"[]", 400, "JSON object"),
        (b'{"log_inof":true}', 400, "unknown log setting 'log_inof'"),
        (b'{"log_info":1}', 400, "expect boolean for 'log_info'"),
        (b'{"log_info":"true"}', 400, "expect boolean for 'log_info'"),
        (b'{"log_error":{}}', 400, "log_error"),
        (b'{"log_verbose_level":true}', 400, "'log_verbose_level'"),
        (b'{"log_verbose_level":-1}', 400, "'log_verbose_level'"),
        (b'{"log_verbose_level":1.5}', 400, "log_verbose_level"),
        (b'{"log_verbose_level":4294967296}', 400, "'log_verbose_level'"),
        (b'{"log_format":7}', 400, "expect string for 'log_format'"),
        (
            b'{"log_file":"/etc/cron.d/x"}',
            501,
            "log file location can not be updated through network protocol",
        ),
        (b'{"log_file":""}', 501, "log file location"),
        (b'{"log_file":null}', 200, ""),
        (b'{"log_verbose_level":4294967295}', 200, ""),
        (b"", 200, ""),
    ],
)
def test_bad_input_over_rest(rest: Rest, body: bytes, status: int, words: str) -> None:
    got, answered = rest.post("/v2/logging", body)
    assert got == status, answered
    assert words in json.dumps(answered)
    if got != 200:
        assert rest.ask("GET", "/v2/logging")[2] == json.dumps(DEFAULT, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("name", "value", "code", "words"),
    [
        ("log_info", {"string_param": "yes"}, 3, "expect boolean for 'log_info'"),
        ("log_warning", {"uint32_param": 1}, 3, "expect boolean for 'log_warning'"),
        ("log_verbose_level", {"bool_param": True}, 3, "expect int32 for 'log_verbose_level'"),
        ("log_format", {"bool_param": True}, 3, "expect string for 'log_format'"),
        ("log_colour", {"bool_param": True}, 3, "unknown log setting 'log_colour'"),
        ("log_file", {"string_param": "x"}, 12, "log file location"),
    ],
)
def test_bad_input_over_grpc(
    logged: RunningServer, name: str, value: dict[str, Any], code: int, words: str
) -> None:
    request = service_pb2.LogSettingsRequest(
        settings={name: service_pb2.LogSettingsRequest.SettingValue(**value)}
    )
    with grpc.insecure_channel(logged.grpc) as channel:
        answer = grpc_call(channel, SERVICE + "LogSettings", request.SerializeToString())
    assert isinstance(answer, Refused)
    assert answer.code == code
    assert words in answer.message


@pytest.mark.parametrize(
    ("level", "info", "warning", "verbose"),
    [("debug", True, True, 1), ("warning", False, True, 0), ("error", False, False, 0)],
)
def test_the_level_of_the_start_shows(
    level: str, info: bool, warning: bool, verbose: int, repository: Path, tmp_path: Path
) -> None:
    with RunningServer(
        repository, tmp_path, "--log-level", level, "--model-control-mode", "explicit"
    ) as server:
        found = json.loads(Rest(server.http).ask("GET", "/v2/logging")[2])
    assert found == {**DEFAULT, "log_info": info, "log_warning": warning, "log_verbose_level": verbose}
