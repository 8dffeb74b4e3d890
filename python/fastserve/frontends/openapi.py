"""The OpenAPI 3.1 document of the REST API, made from the routes that are registered.

What a route looks like (path, methods, path parameters, summary) comes from the route and its endpoint's docstring; what
cannot be seen there is said with @operation:

    @operation("models", answer="ModelMetadata")
    async def model_metadata(request): ...

Routes without it are in the document all the same. Schemas are in openapi_schemas.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route

from fastserve.frontends.openapi_schemas import HEADERS, PARAMETERS, SCHEMAS, TAGS

Json = dict[str, Any]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_ATTRIBUTE = "__fastserve_operation__"
_ERROR_TEXTS = {
    400: "The request is wrong, or what it asks about is not ready",
    404: "There is no such model or version",
    409: "A newer load or unload of the model took its place before it began",
    413: "The body is larger than the limit",
    429: "A limit is reached",
    415: "The body has a content-encoding that is not supported",
    501: "Not supported (yet)",
    503: "The model's queue is full, a timeout passed, or it is still loading",
}


@dataclass(frozen=True)
class Operation:
    tag: str = "other"
    answer: str = ""  # a name of SCHEMAS, or a media type ("text/html"); "": any JSON
    body: str = ""  # a name of SCHEMAS; "": none
    body_required: bool = False
    headers: tuple[str, ...] = ()  # names of HEADERS that a request may have
    errors: tuple[int, ...] = ()
    status: int = 200


def operation(
    tag: str,
    *,
    answer: str = "",
    body: str = "",
    body_required: bool = False,
    headers: Sequence[str] = (),
    errors: Sequence[int] = (),
    status: int = 200,
) -> Callable[[Endpoint], Endpoint]:
    """Documents an endpoint. KeyError, when the module is imported, for a schema or tag that does not exist."""
    for name in (answer, body):
        if name and "/" not in name:
            SCHEMAS[name]
    TAGS[tag]

    def mark(endpoint: Endpoint) -> Endpoint:
        described = Operation(tag, answer, body, body_required, tuple(headers), tuple(errors), status)
        setattr(endpoint, _ATTRIBUTE, described)
        return endpoint

    return mark


def documented_methods(route: Route) -> list[str]:
    """HEAD comes with every GET and is not written down by itself."""
    return sorted((route.methods or set()) - {"HEAD"})


def openapi_document(routes: Iterable[BaseRoute], version: str) -> Json:
    """`version`: of fastserve."""
    paths: dict[str, Json] = {}
    for route in routes:
        if not isinstance(route, Route):
            continue
        for method in documented_methods(route):
            described = _operation(route, method)
            # As in routing, the first route that matches wins.
            paths.setdefault(route.path_format, {}).setdefault(method.lower(), described)
    used = {tag for item in paths.values() for described in item.values() for tag in described["tags"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastserve",
            "version": version,
            "description": "Open Inference Protocol (KServe v2) with Triton's extensions. Every error is "
            '{"error": text}. The same API is served over gRPC.',
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _operation(route: Route, method: str) -> Json:
    about: Operation = getattr(route.endpoint, _ATTRIBUTE, Operation())
    summary, _, description = (inspect.getdoc(route.endpoint) or "").partition("\n\n")
    out: Json = {
        "operationId": _operation_id(method, route.path_format),
        "tags": [about.tag],
        "summary": " ".join(summary.split()),
        "responses": _responses(about),
    }
    if description:
        out["description"] = description
    parameters = [
        {"name": name, "in": "path", "required": True, **PARAMETERS.get(name, {"schema": {"type": "string"}})}
        for name in route.param_convertors
    ] + [{"name": name, "in": "header", **HEADERS[name]} for name in about.headers]
    if parameters:
        out["parameters"] = parameters
    if about.body and method != "GET":
        content: Json = {"application/json": {"schema": _ref(about.body)}}
        if "Inference-Header-Content-Length" in about.headers:
            content["application/octet-stream"] = {}
        out["requestBody"] = {"required": about.body_required, "content": content}
    return out


def _responses(about: Operation) -> Json:
    if "/" in about.answer:
        content: Json = {about.answer: {}}
    else:
        content = {"application/json": {"schema": _ref(about.answer) if about.answer else {}}}
        if about.answer == "InferResponse":
            content["application/octet-stream"] = {}
    responses: Json = {str(about.status): {"description": "Success", "content": content}}
    if about.status >= 300:
        responses = {str(about.status): {"description": _ERROR_TEXTS.get(about.status, "Elsewhere")}}
    for code in about.errors:
        error = {"schema": _ref("Error")}
        responses[str(code)] = {
            "description": _ERROR_TEXTS[code],
            "content": {"application/json": error},
        }
    return responses


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _operation_id(method: str, path: str) -> str:
    """GET /v2/models/{model}/ready -> get_v2_models_model_ready"""
    return f"{method.lower()}_{re.sub(r'[^a-z0-9]+', '_', path.lower()).strip('_') or 'root'}"
