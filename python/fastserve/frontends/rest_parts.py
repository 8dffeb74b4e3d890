"""What REST endpoints share: the server behind a request, the model in its path, JSON in and out.

An endpoint is an async function (Request) -> Response. A module of this package named `rest_*` with a list `ROUTES` of
Starlette routes is found by itself (rest_app.py); `@operation` of openapi.py documents its endpoints.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastserve.errors import InvalidArgument
from fastserve.frontends.served import Served

# The two forms of a model's path.
MODEL_PATHS = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")


def served_of(request: Request) -> Served:
    served: Served = request.app.state.served
    return served


def target_of(request: Request) -> tuple[str, str]:
    """Model and version of the path; version "" where the path has none."""
    return request.path_params["model"], request.path_params.get("version", "")


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # Without spaces, and UTF-8 as it is.
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "replace"), status, headers, media_type="application/json")


async def optional_object(request: Request) -> dict[str, Any]:
    """The JSON object of the body; {} when there is no body. InvalidArgument for anything else."""
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
