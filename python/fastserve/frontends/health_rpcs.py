"""grpc.health.v1.Health: ready is SERVING.

The `service` field is ignored, as Triton does (contracts §2.2), but for `models/NAME` and `models/NAME/versions/VERSION`, which
no service is called: whether that model or version is ready. A probe for one model is `grpc_health_probe -service models/digits`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from fastserve.errors import NotFound
from fastserve.frontends import catalog
from fastserve.frontends.grpc_registry import MAX_ECHO_CHARS, RpcCall, rpc
from fastserve.frontends.served import Served

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3  # HealthCheckResponse.ServingStatus

LOOK_S = 0.25  # at a watched model
_MODEL = re.compile(r"models/(?P<model>[^/]*)(/versions/(?P<version>[^/]*))?")


def _status(call: RpcCall) -> int:
    return SERVING if call.served.ready else NOT_SERVING


def _model_status(served: Served, found: re.Match[str]) -> int:
    """SERVICE_UNKNOWN: no such model, or no such version of it. Raises InvalidArgument."""
    model, version = found["model"], found["version"] or ""
    if catalog.model_ready(served, model, version):
        return SERVING
    known = (s for s in served.reconciler.model_states() if s.model == model)
    return NOT_SERVING if any(not version or str(s.version) == version for s in known) else SERVICE_UNKNOWN


@rpc("/grpc.health.v1.Health/Check")
async def check(request: Any, call: RpcCall) -> Any:
    """NOT_FOUND for a model that is not known, as the protocol has it."""
    found = _MODEL.fullmatch(request.service)
    if found is None:
        return call.response(status=_status(call))
    status = _model_status(call.served, found)
    if status == SERVICE_UNKNOWN:
        raise NotFound(f"service '{request.service[:MAX_ECHO_CHARS]}': no such model or version")
    return call.response(status=status)


@rpc("/grpc.health.v1.Health/List")
async def list_all(request: Any, call: RpcCall) -> Any:
    response = call.response()
    response.statuses[""].status = _status(call)
    return response


@rpc("/grpc.health.v1.Health/Watch")
async def watch(request: Any, call: RpcCall) -> AsyncIterator[Any]:
    """The status now and whenever it is another one, until the client goes away or the server ends."""
    found = _MODEL.fullmatch(request.service)
    last = None
    while True:
        status = _status(call) if found is None else _model_status(call.served, found)
        if status != last:
            yield call.response(status=status)
            last = status
        if found is None:
            await call.served.ready.change()
        else:
            await asyncio.sleep(LOOK_S)
