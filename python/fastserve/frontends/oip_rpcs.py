"""inference.GRPCInferenceService: what the Open Inference Protocol has, and reading of configuration and statistics. Inference
is answered in C++; the other extensions of Triton have modules of their own."""

from __future__ import annotations

from typing import Any

from fastserve.frontends import catalog
from fastserve.frontends.grpc_registry import RpcCall, rpc

SERVICE = "/inference.GRPCInferenceService"


@rpc(f"{SERVICE}/ServerLive")
async def server_live(request: Any, call: RpcCall) -> Any:
    return call.response(live=True)


@rpc(f"{SERVICE}/ServerReady")
async def server_ready(request: Any, call: RpcCall) -> Any:
    return call.response(ready=bool(call.served.ready))


@rpc(f"{SERVICE}/ModelReady")
async def model_ready(request: Any, call: RpcCall) -> Any:
    return call.response(ready=catalog.model_ready(call.served, request.name, request.version))


@rpc(f"{SERVICE}/ServerMetadata")
async def server_metadata(request: Any, call: RpcCall) -> Any:
    return call.response(**catalog.server_metadata(call.served))


@rpc(f"{SERVICE}/ModelMetadata")
async def model_metadata(request: Any, call: RpcCall) -> Any:
    return call.response(**catalog.model_metadata(call.served, request.name, request.version))


@rpc(f"{SERVICE}/ModelConfig")
async def model_config(request: Any, call: RpcCall) -> Any:
    return call.response(config=catalog.completed_model_config(call.served, request.name, request.version))


@rpc(f"{SERVICE}/ModelStatistics")
async def model_statistics(request: Any, call: RpcCall) -> Any:
    return call.response(**catalog.statistics(call.served, request.name, request.version))
