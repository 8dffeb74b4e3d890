"""REST of the Open Inference Protocol with Triton's extensions (contracts §1), without inference: a Starlette
application.

POST .../infer is answered in C++ and never arrives here. Every body is JSON; errors are {"error": text}.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import HTTP_STATUS, FastserveError, InvalidArgument, Unimplemented
from fastserve.frontends import catalog
from fastserve.frontends.served import Served
from fastserve.lifecycle import config_json

log = logging.getLogger("fastserve.http")

Endpoint = Callable[[Request], Awaitable[Response]]

_MODEL = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


def rest_app(served: Served) -> Starlette:
    app = Starlette(
        routes=_routes(),
        exception_handlers={FastserveError: _refused, HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    app.state.served = served
    return app


def _routes() -> list[Route]:
    routes = [
        Route("/v2", server_metadata, methods=["GET"]),
        Route("/v2/health/live", live, methods=["GET"]),
        Route("/v2/health/ready", ready, methods=["GET"]),
        Route("/v2/models/stats", all_statistics, methods=["GET"]),
        Route("/v2/repository/index", repository_index, methods=["POST"]),
    ]
    for path in _MODEL:
        routes += [
            Route(path, model_metadata, methods=["GET"]),
            Route(f"{path}/ready", model_ready, methods=["GET"]),
            Route(f"{path}/config", model_config, methods=["GET"]),
            Route(f"{path}/stats", model_statistics, methods=["GET"]),
            Route(f"{path}/infer", infer, methods=["POST"]),
            *_unserved(f"{path}/generate", ["POST"], "generate is not supported yet: use infer"),
            *_unserved(
                f"{path}/generate_stream", ["POST"], "generate_stream is not supported yet: use infer"
            ),
            *_unserved(f"{path}/trace/setting", ["GET", "POST"], "tracing is not supported yet"),
        ]
    return [*routes, *_unserved_routes()]


def _unserved_routes() -> list[Route]:
    """Routes that Triton's clients know and that answer 501 until they are there."""
    shm = "shared memory is not supported yet: send tensors in the request"
    routes = [
        *_unserved("/v2/trace/setting", ["GET", "POST"], "tracing is not supported yet"),
        *_unserved(
            "/v2/logging", ["GET", "POST"], "log settings are given at start (--log-level, --log-format)"
        ),
    ]
    for verb in ("load", "unload"):
        text = f"models are loaded at start only; {verb} by request is not supported yet"
        routes += _unserved(f"/v2/repository/models/{{model}}/{verb}", ["POST"], text)
    for kind in ("systemsharedmemory", "cudasharedmemory"):
        routes += _unserved(f"/v2/{kind}/status", ["GET"], shm)
        routes += _unserved(f"/v2/{kind}/region/{{region}}/status", ["GET"], shm)
        routes += _unserved(f"/v2/{kind}/region/{{region}}/register", ["POST"], shm)
        routes += _unserved(f"/v2/{kind}/region/{{region}}/unregister", ["POST"], shm)
        routes += _unserved(f"/v2/{kind}/unregister", ["POST"], shm)
    return routes


def _unserved(path: str, methods: list[str], text: str) -> list[Route]:
    async def refuse(request: Request) -> Response:
        raise Unimplemented(text)

    return [Route(path, refuse, methods=methods)]


def _served(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


def _target(request: Request) -> tuple[str, str]:
    """Model and version of the path; a version that is there must not be empty."""
    return request.path_params["model"], request.path_params.get("version", "")


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # Without spaces, and UTF-8 as it is.
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FastserveError)
    return _json({"error": error.message}, HTTP_STATUS.get(error.code, 500))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route (404), no such method on it (405)."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = sorted({m.strip() for m in (error.headers or {}).get("Allow", "").split(",")} - {""})
        text = f"method {request.method[:16]} is not allowed here: use {' or '.join(m for m in allowed if m != 'HEAD')}"
        return _json({"error": text}, 405, {"allow": ", ".join(allowed)})
    return _json({"error": error.detail}, error.status_code)


# --- server


async def server_metadata(request: Request) -> Response:
    return _json(catalog.server_metadata(_served(request)))


async def live(request: Request) -> Response:
    return _json({"live": True})


async def ready(request: Request) -> Response:
    """400 when not ready, as Triton: its clients look at 200 alone, load balancers at anything below 400."""
    is_ready = bool(_served(request).ready)
    return _json({"ready": is_ready}, 200 if is_ready else 400)


async def all_statistics(request: Request) -> Response:
    return _json(catalog.statistics(_served(request), "", ""))


async def repository_index(request: Request) -> Response:
    wanted = await _optional_object(request)
    ready_only = wanted.get("ready", False)
    if not isinstance(ready_only, bool):
        raise InvalidArgument(f"ready: got {str(ready_only)[:64]}, want true or false")
    return _json(catalog.index(_served(request), ready_only))


async def _optional_object(request: Request) -> dict[str, Any]:
    """The JSON object of the body; {} when there is no body."""
    body = await request.body()
    if not body.strip():
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidArgument("failed to parse the request body as JSON") from None
    if not isinstance(value, dict):
        raise InvalidArgument("the request body has to be a JSON object")
    return value


# --- one model


async def model_metadata(request: Request) -> Response:
    return _json(catalog.model_metadata(_served(request), *_target(request)))


async def model_ready(request: Request) -> Response:
    """Unknown models are not ready rather than not found (contracts §2.2)."""
    model, version = _target(request)
    if catalog.model_ready(_served(request), model, version):
        return _json({"name": model, "ready": True})
    return _json({"error": "Model version not ready"}, 400)


async def model_config(request: Request) -> Response:
    return _json(config_json(catalog.completed_model_config(_served(request), *_target(request))))


async def model_statistics(request: Request) -> Response:
    return _json(catalog.statistics(_served(request), *_target(request)))


async def infer(request: Request) -> Response:
    """Only for a path that the hot route does not take as its own: says what is wrong with it."""
    catalog.resolve(_served(request), *_target(request))
    raise InvalidArgument(
        "write the path of infer without percent-encoding: /v2/models/NAME[/versions/N]/infer"
    )
