"""REST: labels of versions. A body says what a label is to stand for: a version (3), or versions with weights
({"3": 95, "4": 5}); null where it is to be removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastserve.errors import InvalidArgument, NotFound
from fastserve.frontends import label_words
from fastserve.frontends.openapi import operation
from fastserve.frontends.rest_parts import json_answer, optional_object, served_of
from fastserve.lifecycle.version_labels import Label

_KEYS = {"labels", "expected"}


@operation("repository", answer="Labels", errors=(400, 404))
async def get_labels(request: Request) -> Response:
    """The labels of a model's versions

    A label stands for those of its versions that are ready, in proportion to their weights.
    """
    model = request.path_params["model"]
    return _answer(model, await label_words.read(served_of(request), model))


@operation("repository", answer="Labels", body="LabelsChange", body_required=True, errors=(400, 404, 429))
async def put_labels(request: Request) -> Response:
    """Changes some labels of a model at once

    No request sees one of them changed and another one not. `expected` is what labels have to stand for now, otherwise nothing
    changes.
    """
    body = await optional_object(request)
    if unknown := sorted(body.keys() - _KEYS):
        raise InvalidArgument(f'"{unknown[0][:128]}": unknown, want labels and expected')
    if "labels" not in body:
        raise InvalidArgument("labels: is missing")
    return await _changed(request, _changes(body, "labels"), _changes(body, "expected"))


@operation("repository", answer="Labels", errors=(400, 404))
async def delete_labels(request: Request) -> Response:
    """Removes all labels that requests have assigned

    Those of the configuration hold again.
    """
    model = request.path_params["model"]
    labels = await label_words.read(served_of(request), model)
    return await _changed(request, {label.name: None for label in labels if label.source == "assigned"}, {})


@operation("repository", answer="Label", errors=(400, 404))
async def get_label(request: Request) -> Response:
    """What one label stands for"""
    model = request.path_params["model"]
    return json_answer(_entry(request, model, await label_words.read(served_of(request), model)))


@operation("repository", answer="Label", body="LabelAssignment", body_required=True, errors=(400, 404, 429))
async def put_label(request: Request) -> Response:
    """Assigns a label

    To versions that need not be ready, or there at all. It holds until it is removed, whatever the configuration says.
    """
    model, label = request.path_params["model"], request.path_params["label"]
    body = await optional_object(request)
    if unknown := sorted(body.keys() - {"versions", "expected"}):
        raise InvalidArgument(f'"{unknown[0][:128]}": unknown, want versions and expected')
    versions = _versions("versions", body.get("versions"))
    if versions is None:
        raise InvalidArgument("versions: is missing")
    expected = {label: _versions("expected", body["expected"])} if "expected" in body else {}
    labels = await label_words.change(served_of(request), model, {label: versions}, expected)
    return json_answer(_entry(request, model, labels))


@operation("repository", answer="Labels", errors=(400, 404))
async def delete_label(request: Request) -> Response:
    """Removes a label that a request has assigned

    What the configuration says of it holds again.
    """
    return await _changed(request, {request.path_params["label"]: None}, {})


async def _changed(request: Request, changes: label_words.Changes, expected: label_words.Changes) -> Response:
    model = request.path_params["model"]
    return _answer(model, await label_words.change(served_of(request), model, changes, expected))


def _changes(body: Mapping[str, Any], key: str) -> dict[str, dict[int, float] | None]:
    given = body.get(key, {})
    if not isinstance(given, dict):
        raise InvalidArgument(f"{key}: want a JSON object")
    return {name: _versions(f'{key}["{name[:128]}"]', value) for name, value in given.items()}


def _versions(field: str, value: Any) -> dict[int, float] | None:
    """3, "3", {"3": 95, "4": 5} or null."""
    if value is None:
        return None
    if not isinstance(value, dict):
        return {_version(field, value): 1}
    if not value:
        raise InvalidArgument(f"{field}: names no version")
    return {
        _version(field, version): _weight(f'{field}["{version[:128]}"]', weight)
        for version, weight in value.items()
    }


def _version(field: str, value: Any) -> int:
    text = str(value)
    if isinstance(value, bool | float) or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgument(f"{field}: got {text[:128]}, want the number of a version or an object of them")
    return int(text)


def _weight(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{field}: want a number")
    return value


def _entry(request: Request, model: str, labels: list[Label]) -> dict[str, Any]:
    name = request.path_params["label"]
    for label in labels:
        if label.name == name:
            return label_words.label_entry(label)
    raise NotFound(f"model '{model}' has no label '{name[:128]}'")


def _answer(model: str, labels: list[Label]) -> Response:
    return json_answer({"model": model, "labels": [label_words.label_entry(label) for label in labels]})


_PATH = "/v2/repository/models/{model}/labels"

ROUTES = [
    Route(_PATH, get_labels, methods=["GET"]),
    Route(_PATH, put_labels, methods=["PUT"]),
    Route(_PATH, delete_labels, methods=["DELETE"]),
    Route(f"{_PATH}/{{label}}", get_label, methods=["GET"]),
    Route(f"{_PATH}/{{label}}", put_label, methods=["PUT"]),
    Route(f"{_PATH}/{{label}}", delete_label, methods=["DELETE"]),
]
