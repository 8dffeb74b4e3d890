"""What importing the client loads, and what else may live in the process."""

from __future__ import annotations

import subprocess
import sys


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_no_engine_and_no_protocol_is_loaded() -> None:
    heavy = [
        "fastserve._core",
        "fastserve._io",
        "fastserve.engine",
        "grpc",
        "google.protobuf",
        "httpx",
        "openvino",
    ]
    program = f"import sys, fastserve.client; print([m for m in {heavy!r} if m in sys.modules])"
    assert run(program) == "[]"


def test_http_needs_neither_grpcio_nor_protobuf() -> None:
    program = (
        "import sys; sys.modules['grpc'] = sys.modules['google.protobuf'] = None\n"
        "from fastserve.client import Client, FastserveError\n"
        "try: Client('http://127.0.0.1:1').live(timeout=1)\n"
        "except FastserveError as error: print(error.code)\n"
        "try: Client('grpc://127.0.0.1:1')\n"
        "except FastserveError as error: print(error.message)"
    )
    assert run(program).splitlines() == ["14", "gRPC needs grpcio: pip install 'fastserve[client]'"]


def test_beside_tritonclient() -> None:
    for order in ("import tritonclient.grpc; use()", "use(); import tritonclient.grpc; use()"):
        program = (
            "from fastserve import protos\n"
            "def use(): return protos.message_class('inference.ModelInferRequest')()\n"
            f"{order}\n"
            "from tritonclient.grpc import service_pb2\n"
            "print(service_pb2.ModelInferRequest is not protos.message_class('inference.ModelInferRequest'))"
        )
        assert run(program) == "True"
