"""Echo under load, gRPC and REST mixed: nothing lost, nothing crossed.

Every request has data and an id of its own, and the answer has to carry both. The long form, 100,000 requests, is
the load generator's (benchmarks/loadgen), where it has been built.
"""

from __future__ import annotations

import json
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from model_repository import identity
from tritonclient.grpc import service_pb2
from wire import INFER, Infer, Rest, Tensor, message

CONNECTIONS = 16
REQUESTS = 2_000
STREAMS = 16  # in flight on a gRPC connection
SIZES = (1, 3, 64, 1000, 30_000)  # elements


def request(connection: int, number: int) -> Infer:
    rng = np.random.default_rng((connection, number))
    data = rng.integers(0, 1 << 32, SIZES[number % len(SIZES)], dtype=np.uint32).astype("<u4").tobytes()
    shape = (len(data) // 4,)
    return Infer("echo", (Tensor("INPUT0", "UINT32", shape, data),), id=f"{connection}-{number}")


def checksum(identifier: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(identifier.encode()))


def over_grpc(address: str, connection: int, count: int) -> int:
    """How many came back as they went."""
    right = 0
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
    with grpc.insecure_channel(address, options) as channel:
        method = channel.unary_unary(INFER)
        for first in range(0, count, STREAMS):
            requests = [request(connection, n) for n in range(first, min(first + STREAMS, count))]
            calls = [method.future(message(r).SerializeToString(), timeout=60) for r in requests]
            for sent, call in zip(requests, calls, strict=True):
                answer = service_pb2.ModelInferResponse.FromString(call.result())
                (data,) = answer.raw_output_contents
                right += checksum(answer.id, data) == checksum(sent.id, sent.inputs[0].data)
    return right


def over_rest(address: str, connection: int, count: int) -> int:
    right = 0
    rest = Rest(address)
    for number in range(count):
        sent = request(connection, number)
        status, answer = rest.infer(sent)
        assert status == 200, answer
        data = np.array(answer["outputs"][0]["data"], dtype="<u4").tobytes()
        right += checksum(answer["id"], data) == checksum(sent.id, sent.inputs[0].data)
    assert rest.is_same_connection
    rest.close()
    return right


def test_nothing_is_lost_or_crossed(start: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    identity(root, "echo", [("UINT32", [-1])])
    server = start(root)
    each = REQUESTS // CONNECTIONS
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        work = [
            pool.submit(over_grpc, server.grpc, c, each)
            if c % 2
            else pool.submit(over_rest, server.http, c, each)
            for c in range(CONNECTIONS)
        ]
        right = sum(done.result() for done in work)
    assert right == CONNECTIONS * each
    scraped = server.scrape()
    labels = 'model="echo",version="1"'
    assert scraped[f"nv_inference_request_success{{{labels}}}"] == right
    assert scraped[f"fastserve_requests_in_flight{{{labels}}}"] == 0
    server.signal()
    assert server.wait() == 0


LOADGEN = sorted((Path(__file__).resolve().parents[2] / "build").glob("*/bin/loadgen"))


@pytest.mark.slow
@pytest.mark.skipif(not LOADGEN, reason="benchmarks/loadgen is not built")
def test_a_hundred_thousand(start: Any, tmp_path: Path) -> None:
    root = tmp_path / "models"
    identity(root, "echo", [("FP32", [16])], max_batch=8)
    server = start(root)
    done = subprocess.run(
        [
            *(str(LOADGEN[0]), "--grpc", server.grpc, "--rest", server.http, "--mix", "--verify-echo"),
            *("--connections", "16", "--in-flight", "4", "--count", "100000", "--warmup", "0"),
            *("--model", "echo", "--shape", "1,16"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    counted = {name: report[name] for name in ("requests", "errors", "lost", "crossed")}
    assert counted == {"requests": 100_000, "errors": 0, "lost": 0, "crossed": 0}
