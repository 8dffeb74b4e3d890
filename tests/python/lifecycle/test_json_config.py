"""ModelConfig as JSON: the same message and the same positions as its text has."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from fastserve import protos
from fastserve.lifecycle import json_config, pbtxt
from fastserve.lifecycle.model_config import read_config, read_json_config

TEXT = """
backend: "openvino"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] }, { name: "y" data_type: TYPE_INT64 dims: [ 1 ] } ]
output { name: "z" data_type: TYPE_FP32 dims: [ 10 ] }
version_policy { specific { versions: [ 1, 3 ] } }
dynamic_batching { preferred_batch_size: [ 4, 8 ] priority_queue_policy { key: 2 value { max_queue_size: 5 } }
  priority_levels: 2 default_priority_level: 1 }
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "f32" } }
"""


def new_message() -> Any:
    return protos.message_class("inference.ModelConfig")()


def json_of(text: str, *, snake: bool) -> str:
    message = new_message()
    pbtxt.parse(text, message)
    return json_format.MessageToJson(message, preserving_proto_field_name=snake)


@pytest.mark.parametrize("snake", [True, False])
def test_json_and_text_say_the_same(snake: bool) -> None:
    from_text, from_json = new_message(), new_message()
    text_positions, errors = pbtxt.parse(TEXT, from_text)
    json_positions, more = json_config.parse(json_of(TEXT, snake=snake), from_json)
    assert (errors, more) == ([], [])
    assert from_json == from_text
    assert {path for path, _ in json_positions} == {path for path, _ in text_positions}
    assert json_positions.map_entry(("parameters",), "INFERENCE_PRECISION_HINT") == ("parameters", 0)
    read, problems = read_json_config("m", json_of(TEXT, snake=snake))
    assert problems == []
    assert read == read_config("m", TEXT)[0]


def test_zero_is_not_the_same_as_nothing() -> None:
    """Without inputs, no max_batch_size means: as the model allows."""
    settings = [
        read_json_config("m", text)[0] for text in ("{}", '{"max_batch_size": 0}', '{"maxBatchSize": null}')
    ]
    assert [s.max_batch_rows for s in settings if s is not None] == [-1, 0, -1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"input": [{"dims": [1, "x"]}]}', "input.dims: "),
        ('{"input": {"name": "x"}}', "input: "),
        ('{"input": [3]}', "input: "),
        ('{"parameters": []}', "parameters: "),
        ('{"parameters": {"x": {"string": "y"}}}', "unknown field 'parameters.string'"),
        ('{"instance_group": [{"kind": "KIND_TPU"}]}', "instance_group.kind: "),
        ('{"max_batch_size": 1.5}', "max_batch_size: "),
        ('{"max_batch_size": true}', "max_batch_size: "),
        ('{"max_batch_size": NaN}', "max_batch_size: "),
        ('{"version_policy": {"latest": {}, "all": {}}}', "version_policy"),
        ('{"name": "a", "name": "b"}', "'name' is given twice"),
        ('{"\\u0000": 1}', "unknown field"),
        ("null", "got null, want a JSON object"),
        ("{} {}", "is no JSON"),
        ('{"input":' * 500 + "1" + "}" * 500, ""),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, words: str) -> None:
    settings, problems = read_json_config("m", text)
    assert settings is None
    said = str(problems[0])
    assert said.startswith("load parameter 'config': ")
    assert words in said
    assert "\n" not in said
    assert len(said) < 300


def test_every_unknown_field_is_named() -> None:
    _, problems = read_json_config("m", '{"inputs": [], "input": [{"dim": [1]}], "batch": 3}')
    assert len(problems) >= 3
