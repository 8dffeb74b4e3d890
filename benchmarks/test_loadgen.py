"""The load client must notice what goes wrong: every fault here is one that a server could have. And what the other tools
must do for a figure of theirs to mean something.

    .venv/bin/python -m pytest benchmarks/test_loadgen.py        (BENCH_BUILD=build/other: the tools of another build)

Not part of tools/test: it wants the tools that run.py builds (skipped without them).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.wire import exchange

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / os.environ.get("BENCH_BUILD", "build/bench") / "bin"
pytestmark = pytest.mark.skipif(not (BIN / "loadgen").exists(), reason=f"{BIN}/loadgen is not built")

Answer = Callable[
    [int, str, bytes], tuple[int, str, bytes] | None
]  # (number, id, tensor) -> (status, id, tensor)


def faithful(_number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
    return 200, request_id, tensor


def other_bytes(number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
    return 200, request_id, bytes([tensor[0] ^ 1]) + tensor[1:] if number == 70 else tensor


def other_id(number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
    return 200, "0" * 16 if number == 70 else request_id, tensor


def refusal(number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
    return 503 if number == 70 else 200, request_id, tensor


def hang_up(number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes] | None:
    return None if number == 70 else (200, request_id, tensor)


class SwappedReplies:
    """Answers one request with the bytes of the one before it."""

    def __init__(self) -> None:
        self.before = b""

    def __call__(self, number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
        answer = self.before if number == 70 else tensor
        self.before = tensor
        return 200, request_id, answer


@contextmanager
def rest_server(answer: Answer) -> Iterator[str]:
    """Echoes binary tensor data as the Open Inference Protocol has it, with the faults of `answer`."""
    loop = asyncio.new_event_loop()
    number = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                total = int(re.search(r"\r\ncontent-length: (\d+)", head)[1])  # type: ignore[index]
                length = int(re.search(r"inference-header-content-length: (\d+)", head)[1])  # type: ignore[index]
                body = await reader.readexactly(total)
                asked = json.loads(body[:length])
                number += 1
                found = answer(number, asked["id"], body[length:])
                if found is None:
                    writer.close()
                    return
                status, reply_id, tensor = found
                output = {
                    **asked["inputs"][0],
                    "name": "OUTPUT0",
                    "parameters": {"binary_data_size": len(tensor)},
                }
                text = json.dumps({"id": reply_id, "outputs": [output]}).encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\nInference-Header-Content-Length: {len(text)}\r\n"
                    f"Content-Length: {len(text) + len(tensor)}\r\n\r\n".encode()
                    + text
                    + tensor
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = loop.run_until_complete(asyncio.start_server(connection, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def loadgen(*words: str, verify: bool = True) -> dict[str, Any]:
    command = [str(BIN / "loadgen"), *words, "--warmup", "0", *(["--verify-echo"] if verify else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "exit_code": done.returncode}


def test_a_faithful_server_is_clean() -> None:
    with rest_server(faithful) as address:
        out = loadgen("--rest", address, "--connections", "4", "--count", "500")
    assert (out["requests"], out["verified"], out["exit_code"]) == (500, 500, 0)
    assert (out["errors"], out["lost"], out["crossed"]) == (0, 0, 0)


def test_pipelined_requests_are_matched_in_order() -> None:
    with rest_server(faithful) as address:
        out = loadgen(
            "--rest", address, "--pipeline", "--in-flight", "8", "--count", "500", "--shape", "3,1001"
        )
    assert (out["verified"], out["exit_code"]) == (500, 0)


@pytest.mark.parametrize(
    ("answer", "key", "word"),
    [
        (other_bytes, "crossed", "bytes"),
        (other_id, "crossed", "id"),
        (SwappedReplies(), "crossed", "bytes"),
        (refusal, "errors", "503"),
        (hang_up, "lost", "closed"),
    ],
    ids=["other bytes", "other id", "swapped", "refused", "hung up"],
)
def test_one_fault_in_two_hundred_is_found(answer: Answer, key: str, word: str) -> None:
    with rest_server(answer) as address:
        out = loadgen("--rest", address, "--connections", "4", "--count", "200")
    assert out[key] == 1
    assert out["exit_code"] == 1
    assert out["requests"] == 199
    assert word in " ".join(out["notes"])


def test_a_silent_server_ends_the_run_as_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        out = loadgen("--rest", address, "--connections", "3", "--count", "10", "--stall", "0.3")
    assert (out["lost"], out["requests"], out["exit_code"]) == (3, 0, 1)


@contextmanager
def grpc_server(answer: Answer) -> Iterator[str]:
    grpc = pytest.importorskip("grpc")
    pb = pytest.importorskip("tritonclient.grpc.service_pb2")
    rpc = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
    from concurrent.futures import ThreadPoolExecutor

    number = 0
    lock = threading.Lock()

    class Echo(rpc.GRPCInferenceServiceServicer):  # type: ignore[misc,name-defined]
        def ModelInfer(self, request: Any, context: Any) -> Any:
            nonlocal number
            with lock:
                number += 1
                found = answer(number, request.id, request.raw_input_contents[0])
            assert found is not None
            status, reply_id, tensor = found
            if status != 200:
                context.abort(grpc.StatusCode.UNAVAILABLE, f"{status} no room")
            tensor_in = request.inputs[0]
            response = pb.ModelInferResponse(id=reply_id, raw_output_contents=[tensor])
            response.outputs.add(name="OUTPUT0", datatype=tensor_in.datatype, shape=tensor_in.shape)
            return response

    server = grpc.server(ThreadPoolExecutor(4))
    rpc.add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    ("answer", "key"),
    [(faithful, None), (other_bytes, "crossed"), (other_id, "crossed"), (refusal, "errors")],
    ids=["faithful", "other bytes", "other id", "refused"],
)
def test_grpc_faults_are_found(answer: Answer, key: str | None) -> None:
    with grpc_server(answer) as address:
        out = loadgen("--grpc", address, "--connections", "2", "--in-flight", "4", "--count", "200")
    assert out["exit_code"] == (0 if key is None else 1)
    assert {name: out[name] for name in ("errors", "lost", "crossed")} == {
        name: int(name == key) for name in ("errors", "lost", "crossed")
    }


def test_mix_asks_both_ways() -> None:
    with rest_server(faithful) as rest, grpc_server(faithful) as grpc_address:
        out = loadgen("--rest", rest, "--grpc", grpc_address, "--mix", "--connections", "4", "--count", "400")
    assert (out["verified"], out["protocol"], out["exit_code"]) == (400, "mix", 0)
    with rest_server(refusal) as rest, grpc_server(faithful) as grpc_address:
        out = loadgen("--rest", rest, "--grpc", grpc_address, "--mix", "--connections", "4", "--count", "400")
    assert (out["errors"], out["exit_code"]) == (1, 1)  # REST really got more than 70 of them


def test_json_is_a_whole_tensor_as_text() -> None:
    """Against a server that reads it: 12 numbers below 1, in an ordinary JSON request."""
    bodies: list[dict[str, Any]] = []
    with http_server(bodies, b'{"outputs":[]}') as address:
        out = loadgen("--rest", address, "--json", "--shape", "3,4", "--count", "5", verify=False)
    assert (out["requests"], out["exit_code"]) == (5, 0)
    data = bodies[0]["inputs"][0].pop("data")
    assert bodies[0]["inputs"] == [{"name": "INPUT0", "shape": [3, 4], "datatype": "FP32"}]
    assert len(data) == 12
    assert all(0 <= number < 1 for number in data)
    assert len(set(data)) == 12


def test_json_cannot_be_verified() -> None:
    command = [str(BIN / "loadgen"), "--rest", "127.0.0.1:1", "--json", "--verify-echo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--json" in done.stderr


@contextmanager
def http_server(bodies: list[dict[str, Any]], answer: bytes) -> Iterator[str]:
    """Answers every POST with `answer` and keeps what was asked."""
    import http.server

    class Keeper(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keeper)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def kernel_echo(folder: Path, request_bytes: int, reply: bytes) -> Iterator[tuple[str, int]]:
    ready = folder / "ready.json"
    (folder / "reply").write_bytes(reply)
    command = [BIN / "kernel_echo", "--request-bytes", request_bytes, "--reply", folder / "reply"]
    process = subprocess.Popen([*map(str, command), "--ready-file", str(ready)])
    try:
        deadline = time.monotonic() + 10
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield json.loads(ready.read_text())["http"], process.pid
    finally:
        process.terminate()
        assert process.wait(10) == 0


def received(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(1 << 16)
        assert piece
        data += piece
    return data


def test_kernel_echo_counts_bytes_and_nothing_else(tmp_path: Path) -> None:
    reply = bytes(range(256)) * 3
    with kernel_echo(tmp_path, 10, reply) as (address, _):
        host, port = address.split(":")
        with (
            socket.create_connection((host, int(port)), 10) as one,
            socket.create_connection((host, int(port)), 10) as two,
        ):
            one.sendall(b"x" * 9)
            two.sendall(b"y" * 25)  # two requests and a half
            assert received(two, 2 * len(reply)) == reply * 2
            one.sendall(b"x")
            assert received(one, len(reply)) == reply
            two.sendall(b"y" * 5)
            assert received(two, len(reply)) == reply
            for sock in (one, two):
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    sock.recv(1)


def test_kernel_echo_writes_what_fits_no_buffer(tmp_path: Path) -> None:
    reply = b"z" * (8 << 20)
    with kernel_echo(tmp_path, 1, reply) as (address, _):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 10) as sock:
            sock.sendall(b"xx")
            assert received(sock, 2 * len(reply)) == reply * 2


def test_kernel_echo_satisfies_the_load_client(tmp_path: Path) -> None:
    """As the scenario `rest` uses it: the bytes of one exchange are recorded and played back."""
    with rest_server(faithful) as address:
        request, reply = exchange(
            address, lambda relay: loadgen("--rest", relay, "--count", "1", verify=False)
        )
    assert request.startswith(b"POST /v2/models/identity/infer HTTP/1.1\r\n")
    assert reply.startswith(b"HTTP/1.1 200")
    with kernel_echo(tmp_path, len(request), reply) as (address, pid):
        words = ("--connections", "8", "--count", "2000", "--server-pid", str(pid))
        out = loadgen("--rest", address, *words, verify=False)
    assert (out["requests"], out["errors"], out["lost"], out["exit_code"]) == (2000, 0, 0, 0)
    assert out["server_cpu_us_per_request"] > 0


def idle(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "idle_connections"), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_idle_connections_ask_once_and_stay() -> None:
    asked: list[str] = []

    def count(number: int, request_id: str, tensor: bytes) -> tuple[int, str, bytes]:
        asked.append(request_id)
        return faithful(number, request_id, tensor)

    with rest_server(count) as address:
        holder = idle("--rest", address, "--connections", "20")
        assert holder.stdout is not None
        assert json.loads(holder.stdout.readline()) == {"open": 20}
        assert len(asked) == 20
        rest, _ = holder.communicate(timeout=10)
    assert json.loads(rest) == {"open": 20, "broken": 0}
    assert holder.returncode == 0
    assert len(asked) == 20


def test_idle_connections_over_grpc() -> None:
    with grpc_server(faithful) as address:
        holder = idle("--grpc", address, "--connections", "5")
        assert holder.stdout is not None
        assert json.loads(holder.stdout.readline()) == {"open": 5}
        rest, _ = holder.communicate(timeout=10)
    assert json.loads(rest) == {"open": 5, "broken": 0}


@pytest.mark.parametrize("answer", [refusal, hang_up], ids=["refused", "hung up"])
def test_idle_connections_want_an_answer_on_each(answer: Answer) -> None:
    with rest_server(answer) as address:  # the 70th goes wrong
        holder = idle("--rest", address, "--connections", "80")
        out, _ = holder.communicate(timeout=10)
    assert out == ""
    assert holder.returncode == 2


def test_idle_connections_that_break_are_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        holder = idle("--rest", address, "--connections", "2")
        assert holder.stdout is not None
        kept = []
        for _ in range(2):
            sock, _ = listener.accept()
            while b"\r\n\r\n" not in sock.recv(1 << 16):
                pass
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            kept.append(sock)
        assert json.loads(holder.stdout.readline()) == {"open": 2}
        kept[0].close()
        # The holder's end is closed too, once it has seen ours: then it has counted.
        kept[1].settimeout(10)
        deadline = time.monotonic() + 10
        while len(open_sockets(holder.pid)) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        rest, _ = holder.communicate(timeout=10)
        kept[1].close()
    assert json.loads(rest) == {"open": 1, "broken": 1}
    assert holder.returncode == 1


def open_sockets(pid: int) -> list[str]:
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    return [link for link in links if link.startswith("socket:")]
