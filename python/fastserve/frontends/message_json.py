"""A protobuf message as JSON in the form that Triton's REST has for model configurations: proto field names, every field that
is not inside a oneof or an unset message written, enums by name, and 64-bit integers as numbers (protobuf's own JSON writes
them as strings)."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.descriptor import FieldDescriptor


def message_json(message: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        result[field.name] = _field(field, getattr(message, field.name))
    return result


def _field(field: FieldDescriptor, value: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        item = entry.fields_by_name["value"]
        return {str(key): _one(item, value[key]) for key in sorted(value)}
    if hasattr(value, "extend"):  # repeated, in every release of protobuf
        return [_one(field, element) for element in value]
    return _one(field, value)


def _one(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return message_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
