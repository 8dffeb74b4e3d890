"""What pydantic found wrong with a document, in words: name of the value, what it is, what it should be, and the line."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.yaml_lines import Path, YamlDocument

_WANTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "string_too_short": "a text that is not empty",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "string_too_long": ("a text of at most characters:", "max_length"),
}


def spelled(path: Path) -> str:
    """("scheduling", "queue", "timeout_ms") -> scheduling.queue.timeout_ms; ("inputs", 0, "dims") -> inputs[0].dims"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def worded(error: ValidationError, schema: type[BaseModel], document: YamlDocument) -> Iterator[TextError]:
    for found in error.errors(include_url=False):
        path = tuple(part for part in found["loc"] if part != "[key]")
        yield TextError(document.line(path), _text(found, path, schema))


def _text(found: Any, path: Path, schema: type[BaseModel]) -> str:
    kind, context = found["type"], found.get("ctx", {})
    name = spelled(path)
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), _known(schema, path[:-1]), n=1)
        return f"unknown key '{name}'" + (f" (did you mean {close[0]}?)" if close else "")
    if kind == "missing":
        return f"{name} is missing"
    if kind == "literal_error":
        want = context["expected"].replace("'", "")
    elif kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        want = f"{words} {context[key]:.12g}"
    else:
        want = _WANTED.get(kind, found["msg"])
    return f"{name or 'the file'}: got {_shown(found['input'])}, want {want}"


def _known(schema: Any, path: Path) -> list[str]:
    """Keys that the mapping at `path` may have."""
    for part in path:
        if isinstance(part, str) and isinstance(schema, type) and issubclass(schema, BaseModel):
            field = next((f for n, f in schema.model_fields.items() if part in (n, f.alias)), None)
            schema = model_in(field.annotation) if field is not None else None
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return [field.alias or name for name, field in schema.model_fields.items()]
    return []


def model_in(annotation: Any) -> Any:
    """The model inside tuple[X, ...], dict[int, X], X | None, Annotated[X, ...]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        (found for part in typing.get_args(annotation) if (found := model_in(part)) is not None), None
    )


def _shown(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else value
    text = (
        {True: "true", False: "false", None: "nothing"}.get(plain)
        if plain is None or isinstance(plain, bool)
        else repr(plain)
    )
    assert text is not None
    return text if len(text) <= 60 else text[:57] + "..."
