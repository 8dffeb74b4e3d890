"""REST: what is logged and what is traced."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import InvalidArgument
from fastserve.frontends import catalog, log_settings
from fastserve.frontends.openapi import operation
from fastserve.frontends.rest_parts import MODEL_PATHS, json_answer, optional_object, served_of, target_of


@operation("settings", answer="Object")
async def log_settings_now(request: Request) -> Response:
    """What is logged"""
    return json_answer(log_settings.current())


@operation("settings", answer="Object", body="Object", errors=(400, 501))
async def change_log_settings(request: Request) -> Response:
    """Changes what is logged: log_info, log_warning, log_error, log_verbose_level, log_format

    Answers with all settings. log_file cannot be changed: 501.
    """
    changes = await optional_object(request)
    for name, value in changes.items():
        if value is not None and not isinstance(value, bool | int | str):
            raise InvalidArgument(f"{name[:128]}: want a truth value, a number or a text")
    log_settings.change(changes)
    return json_answer(log_settings.current())


@operation("settings", answer="Object", errors=(400, 404))
async def trace_settings(request: Request) -> Response:
    """What is traced, of all models or of one"""
    return json_answer(_trace_body(request, _model(request)))


@operation("settings", answer="Object", body="Object", errors=(400, 404, 501))
async def change_trace_settings(request: Request) -> Response:
    """Changes what is traced: trace_level, trace_rate, trace_count, log_frequency

    Numbers are texts; null takes a setting back to that for all models, or to that of the start. Answers with all settings.
    trace_file cannot be changed: 501.
    """
    model = _model(request)
    changes = await optional_object(request)
    served_of(request).tracing.change({name: _texts(name, value) for name, value in changes.items()}, model)
    return json_answer(_trace_body(request, model))


def _model(request: Request) -> str:
    """ "" for all models; NotFound for one that is not there."""
    if "model" not in request.path_params:
        return ""
    return catalog.resolve(served_of(request), *target_of(request)).model


def _trace_body(request: Request, model: str) -> dict[str, Any]:
    """The level is a list, everything else one text."""
    texts = served_of(request).tracing.texts(model)
    return {name: values if name == "trace_level" else values[0] for name, values in texts.items()}


def _texts(name: str, value: Any) -> list[str] | None:
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(v, str) or (isinstance(v, int) and not isinstance(v, bool)) for v in values):
        raise InvalidArgument(f"{name[:128]}: want a text, a list of texts or null")
    return [str(v) for v in values]


ROUTES = [
    Route("/v2/logging", log_settings_now, methods=["GET"]),
    Route("/v2/logging", change_log_settings, methods=["POST"]),
    *(
        Route(f"{path}/trace/setting", endpoint, methods=[method])
        for path in ("/v2", *MODEL_PATHS)
        for method, endpoint in (("GET", trace_settings), ("POST", change_trace_settings))
    ),
]
