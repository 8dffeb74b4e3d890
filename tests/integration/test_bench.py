"""`fastserve bench` against a real server, short; and against sockets that answer badly."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model_repository import identity
from process_figures import wait_until
from running_server import RunningServer, command

DELAY_S = 0.02


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("bench")
    root = folder / "models"
    identity(root, "echo", [("FP32", [16])], max_batch=8)
    identity(root, "any", [("FP32", [-1, -1])])
    identity(root, "strings", [("BYTES", [2]), ("BF16", [3])], max_batch=8)
    identity(root, "slow", [("FP32", [4])], max_batch=1, delay_s=DELAY_S)
    tight = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }"
    identity(root, "tight", [("FP32", [4])], max_batch=1, delay_s=DELAY_S, extra=tight)
    with RunningServer(root, folder) as running:
        yield running


def bench(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("bench", *arguments), capture_output=True, text=True, timeout=timeout, check=False
    )


SHORT = ("--duration", "0.4", "--warmup", "0.1")


def measured(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    file = tmp_path / "bench.json"
    done = bench(*arguments, "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def url(server: RunningServer, protocol: str) -> tuple[str, str]:
    return "--url", f"{protocol}://{getattr(server, protocol)}"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("processes", [1, 2])
def test_closed_loop(server: RunningServer, tmp_path: Path, protocol: str, processes: int) -> None:
    picture = tmp_path / "bench.svg"
    document = measured(
        tmp_path,
        *("echo", *url(server, protocol), *SHORT, "--concurrency", "2,8", "--picture", str(picture)),
        *("--processes", str(processes), "--samples", "3", "--batch", "2"),
    )
    assert [level["level"] for level in document["levels"]] == [2, 8]
    for level in document["levels"]:
        assert level["errors"] == []
        assert level["requests"]["unsent"] == 0
        assert level["requests_per_second"] > 0  # on a machine that is busy with other tests
        latency = level["latency_ms"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"]
        server_side = level["server"]
        assert server_side["requests"] > 0.5 * level["requests"]["answered"]
        assert server_side["rows_per_batch"] >= 2
        # What the client saw is more than what the server says that it took.
        assert latency["mean"] * 1000 > server_side["queue_us"] + server_side["compute_us"]
    assert document["target"]["inputs"][0]["shape"] == [2, 16]
    assert document["machine"]["cpus"] >= 1
    ET.fromstring(picture.read_text())


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("arrival", ["poisson", "constant"])
def test_open_loop_keeps_its_rate(server: RunningServer, tmp_path: Path, protocol: str, arrival: str) -> None:
    document = measured(
        tmp_path,
        *(
            "echo",
            *url(server, protocol),
            "--rate",
            "200",
            "--duration",
            "1",
            "--warmup",
            "0.1",
            "--arrival",
            arrival,
        ),
    )
    (level,) = document["levels"]
    slack = 80 if arrival == "poisson" else 2
    assert abs(level["requests"]["due"] - 200) <= slack
    assert level["requests"]["answered"] == level["requests"]["due"]
    assert level["errors"] == []


def test_an_overloaded_open_loop_says_so(server: RunningServer, tmp_path: Path) -> None:
    """50 a second is what `slow` can do. At 200, latency counts from when a request was due: no omission."""
    document = measured(
        tmp_path,
        *(
            "slow",
            *url(server, "grpc"),
            "--rate",
            "200",
            "--duration",
            "1",
            "--warmup",
            "0",
            "--arrival",
            "constant",
        ),
    )
    (level,) = document["levels"]
    assert level["requests_per_second"] < 60
    assert level["latency_ms"]["max"] > 2000, "200 requests take 4 s, and the last was due after 1 s"
    assert level["latency_ms"]["p50"] > 700
    assert "backlog" in level["overload"]


@pytest.mark.alone
def test_requests_without_a_connection_count_too(server: RunningServer, tmp_path: Path) -> None:
    """One HTTP connection: what was due and never left is in the percentiles, with the time that it waited."""
    document = measured(
        tmp_path,
        *(
            "slow",
            *url(server, "http"),
            "--rate",
            "200",
            "--duration",
            "1",
            "--warmup",
            "0",
            "--arrival",
            "constant",
        ),
        *("--connections", "1"),
    )
    (level,) = document["levels"]
    assert 130 <= level["requests"]["unsent"] <= 170
    assert level["requests"]["due"] == 200
    assert level["latency_ms"]["p99"] > 600
    assert "never sent" in level["overload"]


def test_a_count_ends_it(server: RunningServer, tmp_path: Path) -> None:
    document = measured(
        tmp_path,
        "echo",
        *url(server, "grpc"),
        "--concurrency",
        "4",
        "--requests",
        "37",
        "--processes",
        "3",
        "--warmup",
        "0",
    )
    (level,) = document["levels"]
    assert level["requests"]["due"] == level["requests"]["answered"] == 37
    assert level["window_s"] < 5


@pytest.mark.alone
def test_the_highest_rate_that_keeps_a_promise(server: RunningServer, tmp_path: Path) -> None:
    document = measured(
        tmp_path,
        *(
            "slow",
            *url(server, "grpc"),
            "--target-p99",
            "200",
            "--rate",
            "20",
            "--duration",
            "1",
            "--warmup",
            "0.1",
        ),
        *("--arrival", "constant"),
    )
    search = document["search"]
    assert search["target_p99_ms"] == 200
    assert 20 <= search["rate"] <= 70  # 50, and what 200 ms of backlog hide within a second
    assert search["trials"] == len(document["levels"]) > 2


def test_errors_are_counted_by_code(server: RunningServer, tmp_path: Path) -> None:
    document = measured(
        tmp_path, "tight", *url(server, "grpc"), *SHORT, "--rate", "300", "--arrival", "constant"
    )
    (level,) = document["levels"]
    (error,) = level["errors"]
    assert error["code"] == "UNAVAILABLE"
    assert "Exceeds maximum queue size" in error["first_message"]
    assert error["count"] > 50
    assert error["count"] + level["requests"]["answered"] == level["requests"]["due"]


def test_timeouts_are_errors(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    for protocol in ("grpc", "http"):
        done = bench(
            *(
                "slow",
                *url(server, protocol),
                *SHORT,
                "--concurrency",
                "8",
                "--timeout",
                "0.03",
                "--json",
                str(file),
            )
        )
        assert done.returncode in (0, 1), done.stderr
        errors = json.loads(file.read_text())["levels"][0]["errors"]
        assert {error["code"] for error in errors} <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        assert sum(error["count"] for error in errors) > 3


def test_shapes_and_data(server: RunningServer, tmp_path: Path) -> None:
    document = measured(
        tmp_path,
        "any",
        *url(server, "http"),
        *SHORT,
        "--concurrency",
        "2",
        "--shape",
        "3,5",
        "--input",
        "zeros",
    )
    assert document["target"]["inputs"][0]["shape"] == [3, 5]
    (tmp_path / "x.json").write_text("[[1, 2], [3, 4]]")
    for protocol in ("grpc", "http"):
        document = measured(
            tmp_path,
            "any",
            *url(server, protocol),
            *SHORT,
            "--concurrency",
            "1",
            "--input",
            f"INPUT0={tmp_path}/x.json",
        )
        assert document["levels"][0]["errors"] == []
        document = measured(
            tmp_path, "strings", *url(server, protocol), *SHORT, "--concurrency", "1", "--batch", "3"
        )
        assert document["levels"][0]["errors"] == []


def test_a_large_request(server: RunningServer, tmp_path: Path) -> None:
    """Beyond the windows of HTTP/2 and what a socket takes at once."""
    for protocol in ("grpc", "http"):
        document = measured(
            tmp_path,
            "any",
            *url(server, protocol),
            *SHORT,
            "--concurrency",
            "4",
            "--shape",
            "500,500",
            "--connections",
            "2",
        )
        level = document["levels"][0]
        assert level["errors"] == []
        assert level["requests"]["answered"] > 4


def test_what_it_prints(server: RunningServer, tmp_path: Path) -> None:
    done = bench("echo", *url(server, "grpc"), *SHORT, "--concurrency", "1,4", "--label", "My label")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("My label")
    assert "INPUT0 FP32[1, 16]" in lines[1]
    header = next(line for line in lines if "in flight" in line and "p99.9" in line)
    for column in ("answered/s", "p50 ms", "errors", "server: queue ms", "rows/batch", "client CPU"):
        assert column in header
    assert any(line.startswith("Most: ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nope",), 1, "Request for unknown model: 'nope' is not found"),
        (("echo", "--concurrency", "0"), 2, "--concurrency: got 0"),
        (("echo", "--concurrency", "1.5"), 2, "--concurrency: got 1.5, expected a whole number"),
        (("echo", "--rate", "8:1"), 2, "--rate: got '8:1': the range does not rise"),
        (("echo", "--rate", "1", "--concurrency", "1"), 2, "not allowed with"),
        (("echo", "--target-p99", "5", "--concurrency", "1"), 2, "--target-p99"),
        (("echo", "--target-p99", "0"), 2, "--target-p99"),
        (("echo", "--processes", "0"), 2, "--processes: got 0"),
        (("echo", "--processes", "2", "--concurrency", "1"), 2, "--processes: got 2, more than the 1"),
        (("echo", "--duration", "0.01"), 2, "--duration: got 0.01, expected 0.05 to 86400 seconds"),
        (("echo", "--timeout", "0"), 2, "--timeout: got 0"),
        (("echo", "--shape", "1,2,x"), 2, "--shape 1,2,x"),
        (("echo", "--shape", "1,17"), 2, "the model takes [-1, 16]"),
        (("echo", "--input", "y=zeros"), 2, "no input 'y'; there are INPUT0"),
        (("echo", "--json", "/nowhere/a.json"), 2, "/nowhere/a.json: No such file or directory"),
        (("echo", "--header", "a"), 2, "--header: got 'a', expected NAME:VALUE"),
    ],
)
def test_mistakes_are_one_line(
    server: RunningServer, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = bench(*arguments, *url(server, "grpc"))
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastserve: error: ")
    assert words in line


def test_nobody_there() -> None:
    done = bench("echo", "--url", "grpc://127.0.0.1:1")
    assert done.returncode == 1
    assert "no server answers at grpc://127.0.0.1:1" in done.stderr


def test_a_server_that_dies_under_load(start: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    identity(root, "echo", [("FP32", [16])], max_batch=8)
    running = start(root)
    file = tmp_path / "b.json"
    process = subprocess.Popen(
        command(
            *("bench", "echo", "--url", f"grpc://{running.grpc}", "--concurrency", "4", "--json", str(file)),
            *(
                "--duration",
                "4",
                "--warmup",
                "0",
            ),  # on a busy machine it takes a while until the server is gone
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.scrape().get('nv_inference_request_success{model="echo",version="1"}', 0) < 100:
        pass
    running.process.kill()
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, output + errors
    (level,) = json.loads(file.read_text())["levels"]
    assert level["requests"]["answered"] > 50
    assert [error["code"] for error in level["errors"]] == ["UNAVAILABLE"]


ANSWERED = 'nv_inference_request_success{model="echo",version="1"}'


def test_no_process_is_left_behind(server: RunningServer) -> None:
    before = server.scrape().get(ANSWERED, 0)
    process = subprocess.Popen(
        command("bench", "echo", *url(server, "grpc"), "--duration", "30", "--processes", "2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    children: list[str] = []
    while len(children) < 2:
        assert process.poll() is None, process.communicate()
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        children = [pid for pid in listed if "worker" in Path(f"/proc/{pid}/cmdline").read_text()]
    # In the middle of the run: a signal between two of the starts is another case.
    wait_until(lambda: server.scrape().get(ANSWERED, 0) > before, "no request arrived")
    process.send_signal(2)
    assert process.wait(30) == 130
    assert process.communicate()[1] == ""
    # Who adopts them takes their exit codes when it likes.
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "a process is left")


def test_it_imports_nothing_of_the_server() -> None:
    program = (
        "import sys, fastserve.bench.fleet, fastserve.bench.run, fastserve.cli.bench_screen\n"
        "print([m for m in ('fastserve._core', 'fastserve.server', 'uvloop', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
