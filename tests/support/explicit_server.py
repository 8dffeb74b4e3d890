"""A server in mode explicit, asked with raw messages; and models that tests write for it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from model_repository import mlp_answer, write_mlp
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Infer, Refused, Rest, fp32, grpc_call, grpc_infer


class Explicit:
    """A server in mode explicit, and the folder that it serves from."""

    def __init__(self, server: RunningServer, repository: Path) -> None:
        self.server = server
        self.repository = repository
        self.channel = grpc.insecure_channel(server.grpc)
        self.rest = Rest(server.http)

    def rpc(self, method: str, **fields: Any) -> Any:
        """Refused, or the response message."""
        request = getattr(service_pb2, f"{method}Request")(**fields)
        answer = grpc_call(self.channel, SERVICE + method, request.SerializeToString())
        response = getattr(service_pb2, f"{method}Response")
        return answer if isinstance(answer, Refused) else response.FromString(answer)

    def load(self, model: str) -> Any:
        return self.rpc("RepositoryModelLoad", model_name=model)

    def unload(self, model: str) -> Any:
        return self.rpc("RepositoryModelUnload", model_name=model)

    def index(self, model: str, ready: bool = False) -> list[tuple[str, str, str]]:
        """(version, state, reason) of one model."""
        found = self.rpc("RepositoryIndex", ready=ready).models
        return [(m.version, m.state, m.reason) for m in found if m.name == model]

    def ready(self, model: str, version: str = "") -> bool:
        return bool(self.rpc("ModelReady", name=model, version=version).ready)

    def mlp(self, model: str) -> Any:
        """What an mlp answers for a fixed input."""
        tensors = (fp32("x", 1, 16),)
        answer = grpc_infer(self.channel, Infer(model, tensors))
        assert not isinstance(answer, Refused), answer
        return np.frombuffer(answer.raw_output_contents[0], np.float32)

    def mentions(self, text: str) -> int:
        """Lines of the log with this message."""
        return sum(text in record["message"] for record in self.server.log_records())


def config(explicit: Explicit, model: str) -> Path:
    return explicit.repository / model / "config.pbtxt"


def refused(answer: Any, code: int) -> str:
    assert isinstance(answer, Refused), answer
    assert answer.code == code, answer
    return answer.message


def put_mlp(explicit: Explicit, model: str, version: int = 1, scale: float = 1.0) -> Path:
    """An ONNX file; its answers are `scale` times those of the usual mlp."""
    folder = explicit.repository / model / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / ".new"
    unfinished.write_bytes(scaled_mlp(scale))
    path = folder / "model.onnx"
    unfinished.replace(path)
    return path


@cache
def scaled_mlp(scale: float) -> bytes:
    import onnx
    from onnx import numpy_helper

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_mlp(path)
        made = onnx.load(path)
    for tensor in made.graph.initializer:
        if tensor.name in {"w1", "b1"}:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(scale), tensor.name)
            )
    content: bytes = made.SerializeToString()
    return content


def assert_answers(explicit: Explicit, model: str, scale: float = 1.0) -> None:
    """With what put_mlp wrote; the device may compute in bf16."""
    want = scale * mlp_answer(np.arange(16, dtype=np.float32).reshape(1, 16)).reshape(-1)
    np.testing.assert_allclose(explicit.mlp(model), want, rtol=0, atol=0.03 * np.abs(want).max())
