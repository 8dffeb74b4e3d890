"""inference.GRPCInferenceService without ModelInfer, which C++ answers."""

from __future__ import annotations

from typing import Any

from fastserve.errors import Unimplemented
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


@rpc(f"{SERVICE}/RepositoryIndex")
async def repository_index(request: Any, call: RpcCall) -> Any:
    return call.response(models=catalog.index(call.served, request.ready))


def _not_served(method: str, why: str) -> None:
    @rpc(f"{SERVICE}/{method}")
    async def refuse(request: Any, call: RpcCall) -> Any:
        raise Unimplemented(f"{method}: {why}")


for _method in ("RepositoryModelLoad", "RepositoryModelUnload"):
    _not_served(_method, "models are loaded at start only; loading and unloading by request is not there yet")
for _method in ("Status", "Register", "Unregister"):
    _not_served(
        f"SystemSharedMemory{_method}", "shared memory is not supported yet; send tensors in the request"
    )
    _not_served(
        f"CudaSharedMemory{_method}", "shared memory is not supported yet; send tensors in the request"
    )
_not_served("TraceSetting", "tracing is not supported yet")
_not_served("LogSettings", "log settings are given at start (--log-level, --log-format)")
