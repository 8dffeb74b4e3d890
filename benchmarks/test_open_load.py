"""The open-loop client must count what really happened: on time, late, refused, expired, failed, or never answered.

    .venv/bin/python -m pytest benchmarks/test_open_load.py        (BENCH_BUILD=build/other: the tools of another build)

Not part of tools/test: it wants the tools that run.py builds (skipped without them).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / os.environ.get("BENCH_BUILD", "build/bench") / "bin" / "open_load"
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason=f"{TOOL} is not built")

grpc = pytest.importorskip("grpc")
pb = pytest.importorskip("tritonclient.grpc.service_pb2")
rpc = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")

GOOD_S, LATE_S = 1.0, 1.3
Fault = Callable[[int, Any, Any], None]  # (number from 1 on, request, context); may sleep or abort


@contextmanager
def server(fault: Fault = lambda *_: None, threads: int = 16) -> Iterator[str]:
    """Answers ModelInfer with what it was sent."""
    lock = threading.Lock()
    seen = 0

    class Echo(rpc.GRPCInferenceServiceServicer):  # type: ignore[misc,name-defined]
        def ModelInfer(self, request: Any, context: Any) -> Any:
            nonlocal seen
            with lock:
                seen += 1
                number = seen
            fault(number, request, context)
            given = request.inputs[0]
            response = pb.ModelInferResponse(id=request.id, raw_output_contents=request.raw_input_contents)
            response.outputs.add(name="OUTPUT0", datatype=given.datatype, shape=given.shape)
            return response

    running = grpc.server(ThreadPoolExecutor(threads))
    rpc.add_GRPCInferenceServiceServicer_to_server(Echo(), running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        running.stop(None)


def open_load(address: str, phases: str, *words: str) -> tuple[dict[str, Any], int]:
    """(report, exit code)"""
    command = [str(TOOL), "--grpc", address, "--phases", phases, "--good-ms", str(1000 * GOOD_S), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def ends(phase: dict[str, Any]) -> dict[str, int]:
    return {name: phase[name] for name in ("good", "late", "refused", "expired", "failed") if phase[name]}


def total(report: dict[str, Any], key: str) -> int:
    return sum(phase[key] for phase in report["phases"])


def nth(number: int, act: Fault) -> Fault:
    return lambda now, request, context: act(now, request, context) if now == number else None


def abort(code: str) -> Fault:
    return lambda _number, _request, context: context.abort(getattr(grpc.StatusCode, code), "as asked")


def sleep(_number: int, _request: Any, _context: Any) -> None:
    time.sleep(LATE_S)


def test_a_server_that_keeps_up_is_all_good() -> None:
    with server() as address:
        report, exit_code = open_load(address, "200:0.5,100:0.5")
    assert exit_code == 0
    assert [(phase["per_s"], phase["seconds"]) for phase in report["phases"]] == [(200, 0.5), (100, 0.5)]
    for phase in report["phases"]:
        assert ends(phase) == {"good": phase["offered"]}
        # Poisson: within 5 standard deviations of what was asked for
        expected = phase["per_s"] * phase["seconds"]
        assert abs(phase["offered"] - expected) <= 5 * expected**0.5
        assert phase["goodput_per_s"] == pytest.approx(phase["good"] / phase["seconds"])
    assert report["notes"] == []


def test_arrivals_are_the_same_for_the_same_seed() -> None:
    with server() as address:
        offered = [open_load(address, "300:0.3", "--seed", seed)[0]["phases"][0]["offered"] for seed in "223"]
    assert offered[0] == offered[1]


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("UNAVAILABLE", "refused"),
        ("RESOURCE_EXHAUSTED", "refused"),
        ("DEADLINE_EXCEEDED", "expired"),
        ("INTERNAL", "failed"),
    ],
)
def test_every_other_end_has_a_counter_of_its_own(code: str, end: str) -> None:
    with server(nth(20, abort(code))) as address:
        report, exit_code = open_load(address, "200:0.4")
    (phase,) = report["phases"]
    assert exit_code == 0
    assert ends(phase) == {"good": phase["offered"] - 1, end: 1}
    (note,) = report["notes"]
    assert note.startswith("1 x grpc-status ")
    assert note.endswith(": as asked")


def test_late_answers_are_late() -> None:
    """The 20th takes longer than is good; others may have to wait for it, in grpcio's server they do."""
    with server(nth(20, sleep)) as address:
        report, _ = open_load(address, "100:0.5")
    (phase,) = report["phases"]
    assert phase["late"] >= 1
    assert ends(phase) == {"good": phase["offered"] - phase["late"], "late": phase["late"]}
    assert phase["ok"]["max_us"] >= LATE_S * 1e6


def test_waiting_in_the_client_counts() -> None:
    """One request at a time, 20 ms each, due every 10 ms on average: the tail waits, and its latencies say so."""

    def slow(_number: int, _request: Any, _context: Any) -> None:
        time.sleep(0.02)

    with server(slow) as address:
        report, exit_code = open_load(address, "100:1", "--connections", "1", "--in-flight", "1")
    (phase,) = report["phases"]
    assert exit_code == 0
    assert phase["good"] + phase["late"] == phase["offered"]
    assert phase["ok"]["max_us"] > 500_000, "the last of about 100 waits for half of the others"


def test_a_deadline_is_sent_along() -> None:
    left: list[float] = []
    with server(lambda _number, _request, context: left.append(context.time_remaining())) as address:
        open_load(address, "100:0.2", "--deadline-ms", "5000")
    assert left
    assert all(0 < seconds <= 5 for seconds in left)


def test_priorities_are_shared_out() -> None:
    given: list[int] = []

    def note(_number: int, request: Any, _context: Any) -> None:
        given.append(
            request.parameters["priority"].int64_param or request.parameters["priority"].uint64_param
        )

    with server(note) as address:
        report, _ = open_load(address, "400:0.5", "--high-share", "0.25", "--connections", "4")
    (phase,) = report["phases"]
    assert set(given) == {1, 2}
    assert given.count(1) == phase["high_offered"] == phase["high_ok"]
    assert 0.1 < phase["high_offered"] / phase["offered"] < 0.45


def test_a_silent_server_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        report, exit_code = open_load(address, "50:0.3", "--connections", "2", "--stall", "0.5")
    assert exit_code == 1
    assert time.monotonic() - started < 10
    (phase,) = report["phases"]
    assert phase["offered"] > 0
    assert ends(phase) == {}


def test_a_server_that_hangs_up_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            listener.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        command = [TOOL, "--grpc", f"127.0.0.1:{listener.getsockname()[1]}", "--phases", "50:0.3"]
        done = subprocess.run(
            [*map(str, command), "--connections", "1"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        thread.join()
    assert done.returncode == 1
    assert "open_load: the server closed the connection" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phases", "100"], "--phases"),
        (["--phases", "0:1"], "--phases"),
        (["--phases", "100:1;"], "--phases"),
        (["--phases", "100:1", "--high-share", "2"], "--high-share"),
        (["--phases", "100:1", "--high-share", "0.5", "--connections", "1"], "--connections"),
        (["--phases", "100:1", "--nonsense"], "--nonsense"),
    ],
)
def test_mistakes_are_named(words: list[str], said: str) -> None:
    done = subprocess.run(
        [str(TOOL), "--grpc", "127.0.0.1:1", *words], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
