"""REST: system and CUDA shared memory, which are not there yet."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import Unimplemented
from fastserve.frontends.openapi import operation
from fastserve.frontends.shared_memory_rpcs import NOT_YET


@operation("shared memory", status=501)
async def refuse(request: Request) -> Response:
    """Not there yet: shared memory"""
    raise Unimplemented(NOT_YET)


_ROUTES = (
    ("GET", "status"),
    ("GET", "region/{region}/status"),
    ("POST", "region/{region}/register"),
    ("POST", "region/{region}/unregister"),
    ("POST", "unregister"),
)

ROUTES = [
    Route(f"/v2/{kind}/{path}", refuse, methods=[method])
    for kind in ("systemsharedmemory", "cudasharedmemory")
    for method, path in _ROUTES
]
