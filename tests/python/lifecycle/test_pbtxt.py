"""Positions of fields in text protobuf."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastserve import protos
from fastserve.lifecycle import pbtxt

TEXT = """name: "a" # name: "b"
input [
  { name: 'x' "y"
    dims: [ 1,
            2 ] },
  {
    dims: 3 dims:
      4
  }
]
parameters { key: "{" value { string_value: "}\\"#" } }
parameters: < key: 'k', value: < string_value: "v"; > >
version_policy { specific { versions: [ ] } }
"""


def parse(text: str) -> pbtxt.Positions:
    positions, errors = pbtxt.parse(text, protos.message_class("inference.ModelConfig")())
    assert errors == []
    return positions


def test_lines_of_fields() -> None:
    at = parse(TEXT)
    assert at.line("name") == 1
    assert at.line("input") == 3
    assert at.line("input", 0, "name") == 3
    assert at.line("input", 0, "dims", 0) == 4
    assert at.line("input", 0, "dims", 1) == 5
    assert at.line("input", 1) == 6
    assert at.line("input", 1, "dims", 0) == 7
    assert at.line("input", 1, "dims", 1) == 8
    assert at.line_of_key("parameters", "k") == 12
    assert at.line_of_key("parameters", "{") == 11


def test_what_was_not_written_is_where_it_would_be() -> None:
    at = parse(TEXT)
    assert at.line("input", 1, "data_type") == 6
    assert at.line("output", 0, "name") == 0
    assert at.has("version_policy", 0, "specific", 0, "versions")
    assert not at.has("max_batch_size")


def test_no_positions_and_an_empty_message_for_text_that_is_none() -> None:
    message = protos.message_class("inference.ModelConfig")()
    positions, errors = pbtxt.parse('name: "a"\ninput { name: }', message)
    assert not positions
    assert [error.line for error in errors] == [2]
    assert message.ListFields() == []


@given(st.text(alphabet="ab:{}[]<>\"'#,;\n 1-\\", max_size=60) | st.text(max_size=30))
def test_no_text_breaks_it(text: str) -> None:
    message = protos.message_class("inference.ModelConfig")()
    _, errors = pbtxt.parse(text, message)
    assert all("\n" not in error.message and error.line >= 0 for error in errors)
