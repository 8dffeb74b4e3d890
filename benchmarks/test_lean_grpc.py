"""The lean gRPC client against grpcio's server."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.lean_grpc import LeanGrpc

METHOD = "/bench.Service/Turn"


class Service(grpc.GenericRpcHandler):
    """Answers with the message turned round; refuses an empty one."""

    def service(self, handler_call_details: Any) -> Any:
        assert handler_call_details.method == METHOD

        def turn(message: bytes, context: grpc.ServicerContext) -> bytes:
            if not message:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "empty")
            return message[::-1]

        return grpc.unary_unary_rpc_method_handler(turn)


@pytest.fixture
def address() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Service(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.parametrize("size", [1, 16384 - 5, 16384 - 4, 40_000])
def test_calls_one_after_the_other(address: str, size: int) -> None:
    message = bytes(i % 251 for i in range(size))
    client = LeanGrpc(address, METHOD, message)
    for _ in range(20):  # more than a connection's first window altogether
        assert client.call() == struct.pack("!BI", 0, size) + message[::-1]
    client.close()


def test_a_refusal_is_an_error(address: str) -> None:
    client = LeanGrpc(address, METHOD, b"")
    with pytest.raises(RuntimeError, match="refused"):
        client.call()
    client.close()
