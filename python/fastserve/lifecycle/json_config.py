"""ModelConfig as JSON, as a load by request carries it -> the message, and which of its fields were given.

The counterpart of pbtxt.py: the same Positions, without lines. Names are Triton's (`max_batch_size`) or protobuf's JSON names
(`maxBatchSize`).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fastserve.lifecycle.pbtxt import FieldPath, Positions, TextError, Written

MAX_DEPTH = 32  # of messages in messages; the schema itself has no more than 6


def parse(text: str, message: Any) -> tuple[Positions, list[TextError]]:
    """Fills `message` (as far as the text can be understood) and says what is wrong: every unknown field, of other errors the
    first."""
    from google.protobuf import json_format

    try:
        value = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return Positions(), [TextError(0, f"is no JSON: {_brief(str(error))}")]
    if not isinstance(value, dict):
        return Positions(), [TextError(0, f"got {_kind(value)}, want a JSON object")]
    try:
        written = dict(_fields((), value, message.DESCRIPTOR))
    except _Unknown as unknown:
        return Positions(), [TextError(0, str(unknown))]
    errors = [TextError(0, text) for text in _unknown_fields(value, message.DESCRIPTOR)]
    try:
        # Not by habit: it would leave out unknown values of enums too, without a word.
        json_format.ParseDict(value, message, ignore_unknown_fields=bool(errors))
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        message.Clear()
        return Positions(), [*errors, TextError(0, _worded(str(error)))]
    return Positions(written), errors


class _Unknown(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"'{twice[:64]}' is given twice")
    return found


def _fields(parent: FieldPath, value: Mapping[str, Any], owner: Any) -> Iterator[tuple[FieldPath, Written]]:
    """Paths as pbtxt.py has them: ("input", 0, "dims", 2)."""
    if len(parent) > 2 * MAX_DEPTH:
        raise _Unknown("messages are nested too deeply")
    for name, given in value.items():
        field = _field(owner, name)
        if field is None or given is None:
            continue
        key = (*parent, field.name)
        if _is_map(field):
            yield from _entries(key, given, field.message_type)
        elif field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
            yield (*key, 0), Written(0, "")
            for index, item in enumerate(given if isinstance(given, list) else []):
                yield from _value((*key, index), item, field.message_type)
        else:
            yield from _value((*key, 0), given, field.message_type)


def _value(path: FieldPath, given: Any, message: Any) -> Iterator[tuple[FieldPath, Written]]:
    if message is None:
        yield path, Written(0, str(given))
        return
    yield path, Written(0, "")
    if isinstance(given, dict):
        yield from _fields(path, given, message)


def _entries(key: FieldPath, given: Any, entry: Any) -> Iterator[tuple[FieldPath, Written]]:
    for index, (name, value) in enumerate(given.items() if isinstance(given, dict) else ()):
        yield (*key, index), Written(0, "")
        yield (*key, index, "key", 0), Written(0, name)
        yield from _value((*key, index, "value", 0), value, entry.fields_by_name["value"].message_type)


def _unknown_fields(value: Mapping[str, Any], owner: Any, parent: str = "") -> Iterator[str]:
    for name, given in value.items():
        field = _field(owner, name)
        if field is None:
            close = difflib.get_close_matches(name, owner.fields_by_name, n=1)
            yield f"unknown field '{parent}{name[:64]}'" + (f" (did you mean {close[0]}?)" if close else "")
            continue
        below = field.message_type
        if _is_map(field):
            below = field.message_type.fields_by_name["value"].message_type
            items = list(given.values()) if isinstance(given, dict) else []
        else:
            items = given if isinstance(given, list) else [given]
        if below is not None:
            for item in items:
                if isinstance(item, dict):
                    yield from _unknown_fields(item, below, f"{parent}{field.name}.")


def _field(owner: Any, name: str) -> Any:
    return owner.fields_by_name.get(name) or owner.fields_by_camelcase_name.get(name)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a text", bool: "a truth value", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _worded(text: str) -> str:
    """json_format's message: 'Failed to parse max_batch_size field: Couldn't parse integer: x at ModelConfig.max_batch_size.'"""
    found = re.match(r"Failed to parse (\w+) field: (.*)", text, re.DOTALL)
    if found is None:
        return _brief(text)
    inner = _worded(found[2]) if found[2].startswith("Failed to parse") else _brief(found[2])
    return f"{found[1]}{'.' if found[2].startswith('Failed to parse') else ': '}{inner}"


def _brief(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "not understood"
    line = re.sub(r"^invalid literal for int\(\) with base 10: (.*)$", r"got \1, want an integer", line)
    return re.sub(r' at "?ModelConfig[\w.\[\]]*"?\.?$', "", line).rstrip(".")[:200]
