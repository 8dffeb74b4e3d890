"""SIGHUP, SIGPIPE and systemd's notifications, on a socket of our own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from explicit_server import Explicit
from model_repository import identity
from running_server import RunningServer, command
from wire import Infer, Refused, fp32, grpc_infer

REQUEST = Infer("echo", (fp32("INPUT0", 1, 4),))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    identity(root, "echo", [("FP32", [4])], max_batch=8)
    return root


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Asking(contextlib.AbstractContextManager["Asking"]):
    """Asks `echo` again and again, and whether the server is ready."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.refused: list[Refused] = []
        self.unready = 0
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        explicit = Explicit(self.server, Path())
        while not self._stop.is_set():
            answer = grpc_infer(explicit.channel, REQUEST)
            self.count += 1
            self.refused += [answer] if isinstance(answer, Refused) else []
            self.unready += explicit.rest.ask("GET", "/v2/health/ready")[0] != 200


def test_sighup_reads_the_repository_again(start: Any, repository: Path) -> None:
    identity(repository, "goes", [("FP32", [4])])
    server = start(repository)
    explicit = Explicit(server, repository)
    with Asking(server) as asking:
        identity(repository, "new", [("FP32", [4])])
        (repository / "goes").rename(repository.parent / "goes")
        text = (repository / "echo" / "config.pbtxt").read_text()
        (repository / "echo" / "config.pbtxt").write_text(
            text.replace("max_batch_size: 8", "max_batch_size: 3")
        )
        server.signal(signal.SIGHUP)
        wait_until(lambda: explicit.ready("new"))
        wait_until(lambda: explicit.rpc("ModelConfig", name="echo").config.max_batch_size == 3)
        wait_until(lambda: not explicit.ready("goes"))
    assert (asking.refused, asking.unready, asking.count > 0) == ([], 0, True)
    messages = [record["message"] for record in server.log_records()]
    assert "reloaded: models have changed" in messages


def test_sighup_with_nothing_to_do_and_with_no_repository(start: Any, repository: Path) -> None:
    server = start(repository)
    explicit = Explicit(server, repository)
    server.signal(signal.SIGHUP)
    wait_until(lambda: explicit.mentions("reloaded: nothing has changed") == 1)
    repository.rename(repository.with_name("elsewhere"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: explicit.mentions("nothing was reloaded: ") == 1)
    assert explicit.ready("echo")
    repository.with_name("elsewhere").rename(repository)
    for _ in range(20):
        server.signal(signal.SIGHUP)
    wait_until(lambda: explicit.mentions("reloaded: nothing has changed") >= 2)
    server.signal()
    assert server.wait() == 0


def test_sighup_in_mode_explicit_leaves_alone_what_was_not_asked_for(start: Any, repository: Path) -> None:
    identity(repository, "other", [("FP32", [4])])
    server = start(repository, "--model-control-mode", "explicit", "--load-model", "echo")
    explicit = Explicit(server, repository)
    text = (repository / "echo" / "config.pbtxt").read_text()
    (repository / "echo" / "config.pbtxt").write_text(text.replace("max_batch_size: 8", "max_batch_size: 3"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: explicit.rpc("ModelConfig", name="echo").config.max_batch_size == 3)
    assert not explicit.ready("other")


def test_sigpipe_changes_nothing(start: Any, repository: Path) -> None:
    server = start(repository)
    for _ in range(3):
        server.signal(signal.SIGPIPE)
        assert Explicit(server, repository).ready("echo")
    for _ in range(20):  # clients that do not wait for their answers
        with socket.create_connection(server.http.split(":")) as sock:
            sock.sendall(b"GET /v2/models/echo HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert Explicit(server, repository).ready("echo")


# --- systemd


class Supervisor:
    """What systemd is to a service: a datagram socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self.socket.settimeout(20)
        self.seen: list[dict[str, str]] = []

    def next(self, key: str) -> dict[str, str]:
        """The next message that has this key."""
        while True:
            text = self.socket.recv(4096).decode()
            message = dict(line.split("=", 1) for line in text.split("\n"))
            self.seen.append(message)
            if key in message:
                return message


@pytest.fixture(params=["{folder}/notify", "@fastserve-test-{pid}"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Supervisor]]:
    path = request.param.format(folder=tmp_path, pid=os.getpid())
    made = Supervisor(path)
    yield path, made
    made.socket.close()


def test_systemd_is_told(supervisor: tuple[str, Supervisor], repository: Path, tmp_path: Path) -> None:
    path, systemd = supervisor
    identity(repository, "slow", [("FP32", [4])], max_batch=1, delay_s=0.3)
    environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "400000"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command(
                *("serve", "--model-repository", str(repository)),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
            ),
            stderr=log,
            env=environment,
        )
    try:
        first = systemd.next("STATUS")
        assert int(first["EXTEND_TIMEOUT_USEC"]) >= 1_000_000
        assert systemd.next("READY") == {"READY": "1", "STATUS": "2 ready"}
        began = time.monotonic()
        systemd.next("WATCHDOG")
        systemd.next("WATCHDOG")
        assert time.monotonic() - began < 1.0
        asked = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.send_signal(signal.SIGHUP)
        reloading = systemd.next("RELOADING")
        assert (
            asked <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        )
        assert systemd.next("READY")["READY"] == "1"
        process.terminate()
        assert systemd.next("STOPPING")["STOPPING"] == "1"
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    keys = {key for message in systemd.seen for key in message}
    assert keys <= {
        "READY",
        "STATUS",
        "EXTEND_TIMEOUT_USEC",
        "WATCHDOG",
        "RELOADING",
        "MONOTONIC_USEC",
        "STOPPING",
    }


@pytest.mark.parametrize("address", ["/no/such/socket", "vsock:2:1", "relative", "@nobody-listens"])
def test_a_supervisor_that_is_not_there_changes_nothing(
    start: Any, repository: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "nonsense")
    server = start(repository)
    with grpc.insecure_channel(server.grpc) as channel:
        assert not isinstance(grpc_infer(channel, REQUEST), Refused)
    server.signal()
    assert server.wait() == 0
