"""REST: loading and unloading of models, their states, and reading the repositories again. The index is in rest_app.py."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import InvalidArgument
from fastserve.frontends import model_states, repository_requests
from fastserve.frontends.openapi import operation
from fastserve.frontends.repository_requests import FILE, Value, refuse_repository_name
from fastserve.frontends.rest_parts import json_answer, optional_object, served_of


@operation("repository", body="LoadRequest", errors=(400, 404, 409, 429, 501, 503))
async def load(request: Request) -> Response:
    """Loads a model, or loads it again when it has changed

    Answers when it is ready. What served before goes on serving until then, and when the load fails. `parameters` may have
    `config`, a ModelConfig as JSON text that takes the place of the repository's, and `file:VERSION/NAME`, files in base64
    that the model then consists of. A load without them goes back to what the repository has.
    """
    refuse_repository_name(request.path_params.get("repository", ""))
    values = {name: _load_value(name, value) for name, value in (await _parameters(request)).items()}
    await repository_requests.load(served_of(request), request.path_params["model"], values)
    return json_answer({})


@operation("repository", body="UnloadRequest", errors=(400, 409, 501, 503))
async def unload(request: Request) -> Response:
    """Takes a model out of service

    Answers when its running requests are answered; also when there is no such model.
    """
    refuse_repository_name(request.path_params.get("repository", ""))
    values = {name: _plain(name, value) for name, value in (await _parameters(request)).items()}
    await repository_requests.unload(served_of(request), request.path_params["model"], values)
    return json_answer({})


@operation("repository", answer="ModelStates")
async def states(request: Request) -> Response:
    """Every version with its state, labels, memory and counts

    What `fastserve models` shows. Models that were never loaded have their name alone.
    """
    return json_answer(await model_states.model_states(served_of(request)))


@operation("repository", answer="ModelStates", errors=(503,))
async def reload(request: Request) -> Response:
    """Reads the repositories again

    New and changed versions are loaded, what is gone is unloaded; in mode explicit only models that are loaded are looked at.
    Answers at once, without waiting for loads: 201 when anything has changed, 200 when nothing has.
    """
    changed = await model_states.reload(served_of(request))
    return json_answer(await model_states.model_states(served_of(request)), 201 if changed else 200)


async def _parameters(request: Request) -> dict[str, Any]:
    parameters = (await optional_object(request)).get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidArgument("parameters: want a JSON object")
    return parameters


def _plain(name: str, value: Any) -> Value:
    if value is None or isinstance(value, bool | int | str):
        return value
    raise InvalidArgument(f'parameters["{name[:128]}"]: want a truth value, a number or a text')


def _load_value(name: str, value: Any) -> Value:
    """Files come in base64."""
    if not name.startswith(FILE) or not isinstance(value, str):
        return _plain(name, value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f'parameters["{name[:128]}"]: is not base64') from None


_PATHS = ("/v2/repository/models/{model}", "/v2/repository/{repository}/models/{model}")

ROUTES = [
    Route("/v2/repository/states", states, methods=["GET"]),
    Route("/v2/repository/reload", reload, methods=["POST"]),
] + [
    Route(f"{path}/{endpoint.__name__}", endpoint, methods=["POST"])
    for path in _PATHS
    for endpoint in (load, unload)
]
