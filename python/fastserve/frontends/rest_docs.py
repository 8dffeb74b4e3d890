"""The API's description: /openapi.json, its page at /docs, and what / says. The page is our own and asks nobody else:
three static files that work without a network."""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import NotFound
from fastserve.frontends.openapi import openapi_document, operation
from fastserve.frontends.rest_parts import json_answer, served_of

_MEDIA_TYPES = {"page.css": "text/css", "page.js": "text/javascript"}
# Nothing from elsewhere, no inline script, no eval, in nobody's frame.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept-encoding",  # may be compressed
}


def _file(name: str, media_type: str) -> Response:
    content = resources.files("fastserve.frontends").joinpath("docs", name).read_bytes()
    return Response(content, headers=_HEADERS, media_type=media_type)


@operation("documentation", answer="Links")
async def root(request: Request) -> Response:
    """Where to go from here; browsers are sent to /docs"""
    if "text/html" in request.headers.get("accept", ""):
        return Response(status_code=307, headers={"location": "/docs", "vary": "accept"})
    links = {"docs": "/docs", "openapi": "/openapi.json", "server": "/v2", "ready": "/v2/health/ready"}
    return json_answer({"name": "fastserve", **links}, headers={"vary": "accept"})


@operation("documentation", answer="Object")
async def openapi_json(request: Request) -> Response:
    """This API as an OpenAPI 3.1 document"""
    state = request.app.state
    if not hasattr(
        state, "openapi"
    ):  # routes do not change: made once, because it takes longer than most requests
        state.openapi = json_answer(openapi_document(request.app.routes, served_of(request).version)).body
    return Response(state.openapi, headers={"vary": "accept-encoding"}, media_type="application/json")


@operation("documentation", answer="text/html")
async def docs_page(request: Request) -> Response:
    """This API as a page to read and to try"""
    return _file("page.html", "text/html")


@operation("documentation", answer="text/plain", errors=(404,))
async def docs_file(request: Request) -> Response:
    """The page's script and style"""
    name = request.path_params["file"]
    if name not in _MEDIA_TYPES:
        raise NotFound("Not Found")
    return _file(name, _MEDIA_TYPES[name])


ROUTES = [
    Route("/", root, methods=["GET"]),
    Route("/openapi.json", openapi_json, methods=["GET"]),
    Route("/docs", docs_page, methods=["GET"]),
    Route("/docs/{file}", docs_file, methods=["GET"]),
]
