"""The load client must notice what goes wrong: every fault here is one that a server could have.

    .venv/bin/python -m pytest benchmarks/test_loadgen.py

Not part of tools/test: it wants the tools that run.py builds (skipped without them).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BIN = Path(__file__).resolve().parent.parent / "build" / "bench" / "bin"
pytestmark = pytest.mark.skipif(not (BIN / "loadgen").exists(), reason="build/bench/bin/loadgen is not built")

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


def loadgen(*words: str) -> dict[str, Any]:
    command = [str(BIN / "loadgen"), *words, "--warmup", "0", "--verify-echo"]
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
