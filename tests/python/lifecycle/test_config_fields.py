"""The table of config.pbtxt's fields against the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastserve import protos
from fastserve.lifecycle.config_fields import FIELDS, Verdict, verdict


def schema_paths(descriptor: Any, above: str = "") -> Iterator[str]:
    """Every field that the table has to decide about: what is below a refused or shown one is decided with it."""
    for field in descriptor.fields:
        path = f"{above}{field.name}"
        yield path
        row = verdict(path)
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        walk = (
            row is None
            or row.verdict is Verdict.USED
            or any(other.startswith(f"{path}.") for other in FIELDS)
        )
        if field.message_type is not None and not is_map and walk:
            yield from schema_paths(field.message_type, f"{path}.")


def model_config() -> Any:
    return protos.message_class("inference.ModelConfig").DESCRIPTOR


def test_every_field_of_the_schema_has_a_row() -> None:
    assert [path for path in schema_paths(model_config()) if verdict(path) is None] == []


def test_every_row_is_in_the_schema() -> None:
    assert set(FIELDS) - set(schema_paths(model_config())) == set()


def test_a_row_that_is_not_used_says_why() -> None:
    assert [path for path, row in FIELDS.items() if (row.verdict is Verdict.USED) != (row.note == "")] == []
