"""How a model runs, said in the metadata of both protocols: the precision above all, because OpenVINO takes bf16 by itself."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
from running_server import RunningServer
from wire import SERVICE, grpc_call

from fastserve import protos

KNOWN = {"f32", "bf16", "f16", "i8", "u8"}


def rest_properties(server: RunningServer, model: str) -> dict[str, str]:
    properties: dict[str, str] = httpx.get(f"http://{server.http}/v2/models/{model}").json()["properties"]
    return properties


def grpc_properties(channel: grpc.Channel, model: str) -> dict[str, str]:
    # tritonclient's ModelMetadataResponse has no such field and drops it.
    request: Any = protos.message_class("inference.ModelMetadataRequest")(name=model)
    answer = grpc_call(channel, SERVICE + "ModelMetadata", request.SerializeToString())
    assert isinstance(answer, bytes), answer
    metadata: Any = protos.message_class("inference.ModelMetadataResponse").FromString(answer)
    return dict(metadata.properties)


def test_an_openvino_model_says_its_precision(server: RunningServer, channel: grpc.Channel) -> None:
    properties = rest_properties(server, "mlp")
    assert properties["device"] == "CPU"
    assert properties["precision"] in KNOWN
    assert properties["shape"]
    assert grpc_properties(channel, "mlp") == properties


def test_a_model_without_arithmetic_has_none(server: RunningServer, channel: grpc.Channel) -> None:
    assert (
        rest_properties(server, "batch_fp32") == {"device": "CPU"} == grpc_properties(channel, "batch_fp32")
    )
