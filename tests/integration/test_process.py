"""`fastserve serve` as a process: what keeps it from starting, readiness, the pasted curl, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from model_repository import identity
from running_server import command, records
from wire import Infer, Refused, Rest, fp32, grpc_infer

DELAY_S = 0.6
STUCK_S = 3.0  # the load takes as long, for the warm-up
SLOW = Infer("slow", (fp32("INPUT0", 1, 4),), id="s")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    identity(root, "echo", [("FP32", [4])], max_batch=8)
    identity(root, "slow", [("FP32", [4])], max_batch=8, delay_s=DELAY_S)
    return root


def broken(repository: Path) -> Path:
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_text("no")
    return repository


# --- start


@pytest.mark.alone
def test_start_is_quick_and_says_what_is_served(start: Any, repository: Path) -> None:
    server = start(broken(repository))
    assert server.start_s < 5  # under a second on an idle machine
    assert set(server.addresses) >= {"http", "grpc", "metrics"}
    assert all(server.addresses[name].startswith("127.0.0.1:") for name in ("http", "grpc", "metrics"))
    messages = [record["message"] for record in server.log_records()]
    assert any("echo" in message and "INPUT0 FP32[-1,4]" in message for message in messages)
    assert any("broken" in message for message in messages)


def test_the_curl_works(start: Any, repository: Path) -> None:
    server = start(repository)
    (line,) = (r["message"] for r in server.log_records() if "try: " in r["message"])
    pasted = subprocess.run(
        ["sh", "-c", line.partition("try: ")[2]], capture_output=True, timeout=20, check=True
    )
    answer = json.loads(pasted.stdout)
    assert answer["model_name"] == "echo"
    assert answer["outputs"][0]["data"] == [0, 0, 0, 0]


def test_an_empty_repository_is_ready(start: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    server = start(tmp_path / "empty")
    rest = Rest(server.http)
    assert rest.ask("GET", "/v2/health/ready")[0] == 200
    rest.close()


def run_serve(*arguments: str, **environment: str) -> tuple[int, list[str]]:
    """A start that is to fail: exit code and lines of stderr."""
    done = subprocess.run(
        command("serve", *arguments),
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_in_use(repository: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"--http-port": "0", "--grpc-port": "0", "--metrics-port": "0", flag: str(port)}
        arguments = [text for pair in ports.items() for text in pair]
        code, lines = run_serve("--model-repository", str(repository), *arguments)
    assert code == 2
    assert len(lines) == 1, lines
    assert (
        f"port {port} on 127.0.0.1 is in use: choose another with {flag} or stop the process that has it"
        in lines[0]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--model-repository"),
        (("--model-repository", "/no/such/folder"), "/no/such/folder"),
        (("--model-repository", "{repository}", "--http-port", "70000"), "--http-port"),
        (("--model-repository", "{repository}", "--ready-file", "/no/such/folder/ready"), "--ready-file"),
        (
            ("--model-repository", "{repository}", "--openvino-cache-dir", "/proc/cache"),
            "--openvino-cache-dir",
        ),
        (("--model-repository", "{repository}", "--host", "203.0.113.1"), "--host"),
    ],
    ids=["nothing", "folder", "port", "ready file", "cache", "host"],
)
def test_what_keeps_it_from_starting_is_one_line(
    repository: Path, arguments: tuple[str, ...], words: str
) -> None:
    filled = [argument.replace("{repository}", str(repository)) for argument in arguments]
    code, lines = run_serve(*filled)
    assert code == 2
    assert len(lines) == 1, lines
    assert words in lines[0]


def test_strict_readiness(repository: Path, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(
                *("serve", "--model-repository", str(broken(repository)), "--strict-readiness"),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
            ),
            stderr=log,
        )
    try:
        until = time.monotonic() + 30
        lines: list[dict[str, Any]] = []
        while not any("not ready" in line["message"] for line in lines):
            assert time.monotonic() < until, lines
            time.sleep(0.02)
            lines = records((tmp_path / "log").read_text())
        address = next(line["http"] for line in lines if line["message"] == "listening")
        rest = Rest(address)
        assert rest.ask("GET", "/v2/health/ready")[0] == 400
        assert rest.ask("GET", "/v2/health/live")[0] == 200
        rest.close()
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_access_log_has_the_cold_requests(start: Any, repository: Path) -> None:
    quiet, chatty = start(repository), start(repository, "--access-log")
    for server in (quiet, chatty):
        rest = Rest(server.http)
        rest.ask("GET", "/v2/models/echo", headers={"X-Request-Id": "r-9"})
        rest.close()
        server.signal()
        assert server.wait() == 0
    lines = [r for r in chatty.log_records() if r["logger"] == "fastserve.access"]
    assert [(r["message"], r["request_id"]) for r in lines] == [("GET /v2/models/echo", "r-9")]
    assert not any(r["logger"] == "fastserve.access" for r in quiet.log_records())


# --- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_answered(start: Any, repository: Path, number: int) -> None:
    server = start(repository)

    def over_grpc(_: int) -> bool:
        with grpc.insecure_channel(server.grpc) as channel:
            return not isinstance(grpc_infer(channel, SLOW), Refused)

    def over_rest(_: int) -> bool:
        rest = Rest(server.http)
        status, _ = rest.infer(SLOW)
        rest.close()
        return status == 200

    idle = Rest(server.http)
    idle.ask("GET", "/v2/health/live")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, i) for ask in (over_grpc, over_rest) for i in range(4)]
        labels = 'model="slow",version="1"'
        while server.scrape().get(f"fastserve_requests_in_flight{{{labels}}}", 0) < 8:
            time.sleep(0.01)
        sent = time.monotonic()
        server.signal(number)
        assert [answer.result() for answer in answers] == [True] * 8
    assert server.wait() == 0, server.log()
    # Eight requests may be two batches of the slow model; an idle connection does not hold up the exit.
    assert time.monotonic() - sent < 2 * DELAY_S + 1.5
    assert not server.ready_file.exists()
    idle.close()


def test_not_ready_at_once_when_it_stops(start: Any, repository: Path) -> None:
    server = start(repository)
    host, port = server.http.split(":")
    with ThreadPoolExecutor(1) as pool:
        rest = Rest(server.http)
        answer = pool.submit(rest.infer, SLOW)
        while server.scrape().get('fastserve_requests_in_flight{model="slow",version="1"}', 0) < 1:
            time.sleep(0.01)
        server.signal()
        sent = time.monotonic()
        while True:
            try:
                socket.create_connection((host, int(port)), timeout=0.1).close()
            except (ConnectionRefusedError, ConnectionResetError):
                break
            except TimeoutError:  # the attempt fell into the closing of the listener: its SYN was dropped
                pass
            assert time.monotonic() - sent < 0.3, "still accepts connections"
        assert answer.result()[0] == 200
        rest.close()
    assert server.wait() == 0


def test_a_second_signal_ends_it_at_once(start: Any, repository: Path) -> None:
    identity(repository, "stuck", [("FP32", [4])], delay_s=STUCK_S)
    server = start(repository)
    rest = Rest(server.http)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rest.infer, Infer("stuck", (fp32("INPUT0", 4),)))
        while server.scrape().get('fastserve_requests_in_flight{model="stuck",version="1"}', 0) < 1:
            time.sleep(0.01)
        server.signal()
        time.sleep(0.2)
        assert server.process.poll() is None
        server.signal()
        assert server.wait(STUCK_S / 2) == 128 + signal.SIGTERM
        with pytest.raises((OSError, HTTPException)):
            answer.result()


def test_the_exit_timeout_ends_it_too(start: Any, repository: Path) -> None:
    identity(repository, "stuck", [("FP32", [4])], delay_s=STUCK_S)
    server = start(repository, "--exit-timeout", "0.3")
    rest = Rest(server.http)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(rest.infer, Infer("stuck", (fp32("INPUT0", 4),)))
        while server.scrape().get('fastserve_requests_in_flight{model="stuck",version="1"}', 0) < 1:
            time.sleep(0.01)
        server.signal()
        assert server.wait(STUCK_S / 2) == 1
        assert any("unfinished" in r["message"] for r in server.log_records())
        with pytest.raises((OSError, HTTPException)):
            answer.result()


def test_a_health_watch_hears_of_the_end(start: Any, repository: Path) -> None:
    server = start(repository)
    seen = []
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        seen.append(next(watch).status)
        server.signal()
        with pytest.raises(grpc.RpcError) as caught:
            seen += [answer.status for answer in iter(lambda: next(watch), None)]
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert seen[0] == health_pb2.HealthCheckResponse.SERVING
    assert server.wait() == 0


def test_a_signal_while_models_load(repository: Path, tmp_path: Path) -> None:
    identity(repository, "stuck", [("FP32", [4])], delay_s=STUCK_S)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(
                *("serve", "--model-repository", str(repository)),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
            ),
            stderr=log,
        )
    try:
        until = time.monotonic() + 30
        while not any(line["message"] == "listening" for line in records((tmp_path / "log").read_text())):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        process.terminate()
        assert process.wait(2 * STUCK_S + 5) == 0
    assert records((tmp_path / "log").read_text())[-1]["message"] == "stopped"
