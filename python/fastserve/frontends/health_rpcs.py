"""grpc.health.v1.Health: ready is SERVING. The `service` field is ignored, as Triton does (contracts
§2.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastserve.frontends.grpc_registry import RpcCall, rpc

SERVING, NOT_SERVING = 1, 2  # HealthCheckResponse.ServingStatus


def _status(call: RpcCall) -> int:
    return SERVING if call.served.ready else NOT_SERVING


@rpc("/grpc.health.v1.Health/Check")
async def check(request: Any, call: RpcCall) -> Any:
    return call.response(status=_status(call))


@rpc("/grpc.health.v1.Health/List")
async def list_all(request: Any, call: RpcCall) -> Any:
    response = call.response()
    response.statuses[""].status = _status(call)
    return response


@rpc("/grpc.health.v1.Health/Watch")
async def watch(request: Any, call: RpcCall) -> AsyncIterator[Any]:
    """The status now and whenever it is another one, until the client goes away or the server ends."""
    last = None
    while True:
        status = _status(call)
        if status != last:
            yield call.response(status=status)
            last = status
        await call.served.ready.change()
