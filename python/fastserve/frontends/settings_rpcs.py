"""inference.GRPCInferenceService: what is logged and what is traced."""

from __future__ import annotations

from typing import Any

from fastserve.frontends import catalog, log_settings
from fastserve.frontends.grpc_registry import RpcCall, rpc

SERVICE = "/inference.GRPCInferenceService"


@rpc(f"{SERVICE}/LogSettings")
async def set_log(request: Any, call: RpcCall) -> Any:
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in request.settings.items()}
    log_settings.change(
        {n: getattr(request.settings[n], kind) if kind else None for n, kind in kinds.items()}
    )
    response = call.response()
    for name, value in log_settings.current().items():
        setattr(response.settings[name], _log_kind(value), value)
    return response


@rpc(f"{SERVICE}/TraceSetting")
async def set_trace(request: Any, call: RpcCall) -> Any:
    if request.model_name:
        catalog.resolve(call.served, request.model_name, "")
    tracing = call.served.tracing
    changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
    tracing.change(changes, request.model_name)
    response = call.response()
    for name, values in tracing.texts(request.model_name).items():
        response.settings[name].value.extend(values)
    return response


def _log_kind(value: bool | int | str) -> str:
    if isinstance(value, bool):
        return "bool_param"
    return "uint32_param" if isinstance(value, int) else "string_param"
