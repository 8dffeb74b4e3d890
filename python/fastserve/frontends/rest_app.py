"""REST of the Open Inference Protocol with Triton's extensions (contracts §1), without inference: a Starlette
application.

POST .../infer is answered in C++ and arrives here only when its path is written in a way that the hot route does not
take; its route stands here for the rest: other methods, OPTIONS, the document. Every body is JSON; errors are
{"error": text}. Modules of this package named `rest_*` add their ROUTES by themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve import frontends
from fastserve.errors import HTTP_STATUS, FastserveError, InvalidArgument, Unimplemented
from fastserve.frontends import catalog
from fastserve.frontends.openapi import operation
from fastserve.frontends.rest_parts import MODEL_PATHS, json_answer, optional_object, served_of, target_of
from fastserve.frontends.served import Served
from fastserve.lifecycle import config_json


def rest_app(served: Served) -> Starlette:
    app = Starlette(
        routes=_routes(),
        exception_handlers={FastserveError: _refused, HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    app.state.served = served
    return app


def _routes() -> list[Route]:
    return [*_own_routes(), *_found_routes(), *_unserved_routes()]


def _own_routes() -> Iterator[Route]:
    yield Route("/v2", server_metadata, methods=["GET"])
    yield Route("/v2/health/live", live, methods=["GET"])
    yield Route("/v2/health/ready", ready, methods=["GET"])
    yield Route("/v2/models/stats", all_statistics, methods=["GET"])
    yield Route("/v2/repository/index", repository_index, methods=["POST"])
    yield Route("/v2/repository/{repository}/index", named_repository_index, methods=["POST"])
    for path in MODEL_PATHS:
        yield Route(path, model_metadata, methods=["GET"])
        yield Route(f"{path}/ready", model_ready, methods=["GET"])
        yield Route(f"{path}/config", model_config, methods=["GET"])
        yield Route(f"{path}/stats", model_statistics, methods=["GET"])
        yield Route(f"{path}/infer", infer, methods=["POST"])


def _found_routes() -> Iterator[Route]:
    for module in pkgutil.iter_modules(frontends.__path__):
        if module.name.startswith("rest_") and module.name != "rest_app":
            found = importlib.import_module(f"{frontends.__name__}.{module.name}")
            yield from getattr(found, "ROUTES", ())


def _unserved_routes() -> Iterator[Route]:
    """Routes that Triton's clients know and that answer 501 until they are there."""
    for path in MODEL_PATHS:
        for name in ("generate", "generate_stream"):
            text = f"{name} is not supported yet: use infer"
            yield _unserved(f"{path}/{name}", ["POST"], "inference", text)


def _unserved(path: str, methods: list[str], tag: str, text: str) -> Route:
    async def refuse(request: Request) -> Response:
        raise Unimplemented(text)

    refuse.__doc__ = f"Not there yet: {text}"
    return Route(path, operation(tag, status=501)(refuse), methods=methods)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, FastserveError)
    return json_answer({"error": error.message}, HTTP_STATUS.get(error.code, 500))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own: no such route (404), no such method on it (405)."""
    assert isinstance(error, HTTPException)
    if error.status_code != 405:
        return json_answer({"error": error.detail}, error.status_code)
    allowed = _allowed_methods(request)
    if request.method == "OPTIONS":
        return Response(status_code=204, headers={"allow": ", ".join([*allowed, "OPTIONS"])})
    usable = " or ".join(m for m in allowed if m != "HEAD")
    text = f"method {request.method[:16]} is not allowed here: use {usable}"
    return json_answer({"error": text}, 405, {"allow": ", ".join(allowed)})


def _allowed_methods(request: Request) -> list[str]:
    """Of every route for the path: Starlette's error knows the first one's only."""
    allowed: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match.value:
            allowed |= route.methods or set()
    return sorted(allowed)


# --- server


@operation("server", answer="ServerMetadata")
async def server_metadata(request: Request) -> Response:
    """Name, version and extensions of the server"""
    return json_answer(catalog.server_metadata(served_of(request)))


@operation("health", answer="Live")
async def live(request: Request) -> Response:
    """Whether the server runs"""
    return json_answer({"live": True})


@operation("health", answer="Ready", errors=(400,))
async def ready(request: Request) -> Response:
    """Whether the server is ready

    400 when it is not, as Triton answers: its clients look at 200 alone, load balancers at anything below 400.
    """
    is_ready = bool(served_of(request).ready)
    return json_answer({"ready": is_ready}, 200 if is_ready else 400)


@operation("models", answer="Statistics")
async def all_statistics(request: Request) -> Response:
    """Statistics of every version that is ready"""
    return json_answer(catalog.statistics(served_of(request), "", ""))


@operation("repository", answer="Index", body="IndexRequest", errors=(400,))
async def repository_index(request: Request) -> Response:
    """Every version that is wanted or served, and what failed with the reason"""
    wanted = await optional_object(request)
    ready_only = wanted.get("ready", False)
    if not isinstance(ready_only, bool):
        raise InvalidArgument(f"ready: got {str(ready_only)[:64]}, want true or false")
    return json_answer(await catalog.index(served_of(request), ready_only))


@operation("repository", status=501)
async def named_repository_index(request: Request) -> Response:
    """Not supported: repositories have no names here"""
    raise Unimplemented("'repository_name' specification is not supported: use /v2/repository/index")


# --- one model


@operation("models", answer="ModelMetadata", errors=(400, 404))
async def model_metadata(request: Request) -> Response:
    """Names, datatypes and shapes of a model's inputs and outputs"""
    return json_answer(catalog.model_metadata(served_of(request), *target_of(request)))


@operation("models", answer="ModelReady", errors=(400,))
async def model_ready(request: Request) -> Response:
    """Whether a model is ready

    A model that nobody knows is not ready (400) rather than not found (contracts §2.2).
    """
    model, version = target_of(request)
    if catalog.model_ready(served_of(request), model, version):
        return json_answer({"name": model, "ready": True})
    return json_answer({"error": "Model version not ready"}, 400)


@operation("models", answer="ModelConfig", errors=(400, 404))
async def model_config(request: Request) -> Response:
    """A model's configuration, completed from its file"""
    return json_answer(config_json(catalog.completed_model_config(served_of(request), *target_of(request))))


@operation("models", answer="Statistics", errors=(400, 404))
async def model_statistics(request: Request) -> Response:
    """Statistics of a model's versions that are ready, or of one version"""
    return json_answer(catalog.statistics(served_of(request), *target_of(request)))


@operation(
    "inference",
    answer="InferResponse",
    body="InferRequest",
    body_required=True,
    headers=("Inference-Header-Content-Length", "Content-Encoding", "Accept-Encoding"),
    errors=(400, 404, 413, 415, 501, 503),
)
async def infer(request: Request) -> Response:
    """Inference

    Tensors as JSON, or as bytes behind the JSON (Triton's binary tensor data extension). Bodies may be compressed.
    """
    # Only for a path that the hot route does not take as its own: says what is wrong with it.
    catalog.resolve(served_of(request), *target_of(request))
    raise InvalidArgument(
        "write the path of infer without percent-encoding: /v2/models/NAME[/versions/N]/infer"
    )
