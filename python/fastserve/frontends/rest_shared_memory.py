"""REST: system and CUDA shared memory."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import InvalidArgument
from fastserve.frontends import shared_memory
from fastserve.frontends.openapi import operation
from fastserve.frontends.rest_parts import json_answer, optional_object, served_of
from fastserve.frontends.shared_memory import CudaRegion, Region

TAG = "shared memory"


@operation(TAG, answer="Regions", errors=(404, 501))
async def system_status(request: Request) -> Response:
    """Registered regions, or one of them

    501 unless the server was started with --allow-client-shm.
    """
    regions = shared_memory.system_status(served_of(request), _name(request))
    return json_answer([asdict(region) for region in regions])


@operation(TAG, body="RegionRegistration", body_required=True, errors=(400, 429, 501))
async def system_register(request: Request) -> Response:
    """Registers shared memory of the client under a name

    Requests name it in `parameters` of inputs and outputs: shared_memory_region, shared_memory_byte_size, shared_memory_offset.
    """
    shared_memory.check_allowed(served_of(request))
    body = await optional_object(request)
    region = Region(
        _name(request), _text(body, "key"), _whole(body, "offset", 0), _whole(body, "byte_size", None)
    )
    await shared_memory.register(served_of(request), region)
    return json_answer({})


@operation(TAG, errors=(501,))
async def system_unregister(request: Request) -> Response:
    """Forgets one region, or all

    Requests that use it finish with it. Also when there is no such region.
    """
    shared_memory.unregister(served_of(request), "system", _name(request))
    return json_answer({})


@operation(TAG, answer="CudaRegions", errors=(404, 501))
async def cuda_status(request: Request) -> Response:
    """Registered GPU memory, or one region of it

    None on a server without a GPU. 501 unless it was started with --allow-client-shm.
    """
    regions = shared_memory.cuda_status(served_of(request), _name(request))
    return json_answer([asdict(region) for region in regions])


@operation(TAG, body="CudaRegionRegistration", body_required=True, errors=(400, 429, 501))
async def cuda_register(request: Request) -> Response:
    """Registers GPU memory of the client under a name

    By its CUDA IPC handle. 501 without a GPU.
    """
    shared_memory.check_allowed(served_of(request))
    body = await optional_object(request)
    region = CudaRegion(_name(request), _whole(body, "device_id", 0), _whole(body, "byte_size", None))
    await shared_memory.register_cuda(served_of(request), region, _handle(body))
    return json_answer({})


@operation(TAG, errors=(404, 501))
async def cuda_unregister(request: Request) -> Response:
    """Forgets one region of GPU memory, or all

    Requests that use it finish with it. Also when there is no such region.
    """
    shared_memory.unregister(served_of(request), "cuda", _name(request))
    return json_answer({})


def _name(request: Request) -> str:
    """ "" for all."""
    name: str = request.path_params.get("region", "")
    return name


def _text(body: dict[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise InvalidArgument(f"{field}: {'missing' if value is None else 'got another type'}, want a text")
    return value


def _whole(body: dict[str, Any], field: str, default: int | None) -> int:
    value = body.get(field, default)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidArgument(
        f"{field}: {'missing' if value is None else 'got another type'}, want a whole number"
    )


def _handle(body: dict[str, Any]) -> bytes:
    raw = body.get("raw_handle")
    text = raw.get("b64") if isinstance(raw, dict) else None
    if not isinstance(text, str):
        raise InvalidArgument('raw_handle: want {"b64": "..."}, the base64 text of a cudaIpcMemHandle_t')
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise InvalidArgument("raw_handle.b64: got a text that is no base64") from None


def _routes(kind: str, status: Any, register: Any, unregister: Any) -> list[Route]:
    prefix = f"/v2/{kind}sharedmemory"
    return [
        Route(f"{prefix}/status", status, methods=["GET"]),
        Route(f"{prefix}/region/{{region}}/status", status, methods=["GET"]),
        Route(f"{prefix}/region/{{region}}/register", register, methods=["POST"]),
        Route(f"{prefix}/region/{{region}}/unregister", unregister, methods=["POST"]),
        Route(f"{prefix}/unregister", unregister, methods=["POST"]),
    ]


ROUTES = [
    *_routes("system", system_status, system_register, system_unregister),
    *_routes("cuda", cuda_status, cuda_register, cuda_unregister),
]
