"""Requests made by hand, for what tritonclient would not send: over gRPC by protobuf messages, over REST by bytes."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Tensor:
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Infer:
    """One request, whichever protocol carries it; tensors as raw bytes."""

    model: str
    inputs: tuple[Tensor, ...]
    version: str = ""
    outputs: tuple[str, ...] = ()
    id: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    code: int  # gRPC's or HTTP's
    message: str


def fp32(name: str, *shape: int) -> Tensor:
    count = int(np.prod(shape, dtype=np.int64)) if shape else 1
    return Tensor(name, "FP32", shape, np.arange(count, dtype=np.float32).tobytes())


# --- gRPC


def message(request: Infer) -> Any:
    made = service_pb2.ModelInferRequest(
        model_name=request.model, model_version=request.version, id=request.id
    )
    for tensor in request.inputs:
        made.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        made.raw_input_contents.append(tensor.data)
    for name in request.outputs:
        made.outputs.add(name=name)
    for key, value in request.parameters.items():
        if isinstance(value, bool):
            made.parameters[key].bool_param = value
        elif isinstance(value, int):
            made.parameters[key].int64_param = value
        else:
            made.parameters[key].string_param = value
    return made


def grpc_call(channel: grpc.Channel, path: str, payload: bytes, **kwargs: Any) -> bytes | Refused:
    """The bytes of the answer."""
    kwargs.setdefault("timeout", TIMEOUT_S)
    try:
        answer: bytes = channel.unary_unary(path)(payload, **kwargs)
    except grpc.RpcError as error:
        return Refused(error.code().value[0], error.details() or "")
    return answer


def grpc_infer(channel: grpc.Channel, request: Any, **kwargs: Any) -> Any:
    """`request`: Infer or a ModelInferRequest. A ModelInferResponse, or Refused."""
    made = message(request) if isinstance(request, Infer) else request
    answer = grpc_call(channel, INFER, made.SerializeToString(), **kwargs)
    return answer if isinstance(answer, Refused) else service_pb2.ModelInferResponse.FromString(answer)


# --- REST


class Rest:
    """One HTTP/1.1 connection; `is_same_connection` says whether the server has closed it in between."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        self._connection.connect()
        self._socket: Any = self._connection.sock

    @property
    def is_same_connection(self) -> bool:
        return self._connection.sock is self._socket

    def ask(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers with lower-case names, body."""
        self._connection.request(method, target, body, headers or {})
        response = self._connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def infer(self, request: Infer) -> tuple[int, Any]:
        """Sends tensors as binary; status and the JSON part of the answer."""
        header, body = rest_body(request)
        headers = {"Inference-Header-Content-Length": str(len(header))}
        status, answered, content = self.ask("POST", infer_path(request), header + body, headers)
        length = int(answered.get("inference-header-content-length", len(content)))
        return status, json.loads(content[:length])

    def post(self, target: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, _, content = self.ask("POST", target, body, headers)
        return status, json.loads(content)

    def close(self) -> None:
        self._connection.close()


def infer_path(request: Infer) -> str:
    return (
        f"/v2/models/{request.model}" + (f"/versions/{request.version}" if request.version else "") + "/infer"
    )


def rest_body(request: Infer) -> tuple[bytes, bytes]:
    """The JSON header and the binary part."""
    header: dict[str, Any] = {
        "inputs": [
            {
                "name": t.name,
                "datatype": t.datatype,
                "shape": list(t.shape),
                "parameters": {"binary_data_size": len(t.data)},
            }
            for t in request.inputs
        ]
    }
    if request.id:
        header["id"] = request.id
    if request.outputs:
        header["outputs"] = [{"name": name} for name in request.outputs]
    if request.parameters:
        header["parameters"] = request.parameters
    return json.dumps(header).encode(), b"".join(t.data for t in request.inputs)
