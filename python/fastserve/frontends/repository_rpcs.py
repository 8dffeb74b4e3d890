"""inference.GRPCInferenceService: the model repository."""

from __future__ import annotations

from typing import Any

from fastserve.frontends import catalog
from fastserve.frontends.grpc_registry import RpcCall, rpc
from fastserve.frontends.repository_requests import Value, load, refuse_repository_name, unload

SERVICE = "/inference.GRPCInferenceService"


@rpc(f"{SERVICE}/RepositoryIndex")
async def repository_index(request: Any, call: RpcCall) -> Any:
    refuse_repository_name(request.repository_name)
    return call.response(models=await catalog.index(call.served, request.ready))


@rpc(f"{SERVICE}/RepositoryModelLoad")
async def repository_model_load(request: Any, call: RpcCall) -> Any:
    refuse_repository_name(request.repository_name)
    await load(call.served, request.model_name, _values(request.parameters))
    return call.response()


@rpc(f"{SERVICE}/RepositoryModelUnload")
async def repository_model_unload(request: Any, call: RpcCall) -> Any:
    refuse_repository_name(request.repository_name)
    await unload(call.served, request.model_name, _values(request.parameters))
    return call.response()


def _values(parameters: Any) -> dict[str, Value]:
    """Of map<string, ModelRepositoryParameter>."""
    found = {name: (value, value.WhichOneof("parameter_choice")) for name, value in parameters.items()}
    return {name: getattr(value, kind) if kind else None for name, (value, kind) in found.items()}
