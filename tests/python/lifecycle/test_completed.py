"""What ModelConfig says of a loaded version."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from fastserve.lifecycle import completed_config, config_json
from fastserve.lifecycle.model_config import read_config, without_config


def status(**fields: Any) -> Any:
    known = {
        "backend": "openvino",
        "platform": "openvino",
        "max_batch_rows": 8,
        "instance_count": 2,
        "inputs": [SimpleNamespace(name="x", datatype="FP32", shape=[-1, 3, 224])],
        "outputs": [SimpleNamespace(name="y", datatype="BYTES", shape=[-1, 10])],
    }
    return SimpleNamespace(**(known | fields))


def completed(text: str | None, **fields: Any) -> dict[str, Any]:
    settings = without_config("m") if text is None else read_config("m", text)[0]
    assert settings is not None
    spec = settings.version_spec(1, "openvino", "/r/m/1/model.onnx", {"CACHE_DIR": "/c"})
    return config_json(completed_config(spec, status(**fields)))


def test_without_config_everything_comes_from_the_model() -> None:
    config = completed(None)
    assert (config["name"], config["backend"], config["platform"]) == ("m", "openvino", "openvino")
    assert config["max_batch_size"] == 8
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["input"]] == [("x", "TYPE_FP32", [3, 224])]
    assert [(t["name"], t["data_type"], t["dims"]) for t in config["output"]] == [("y", "TYPE_STRING", [10])]
    assert [(g["name"], g["kind"], g["count"]) for g in config["instance_group"]] == [("m_0", "KIND_CPU", 2)]
    assert config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["default_model_filename"] == "model.onnx"
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 0
    assert config["parameters"] == {}  # our own defaults are nobody's wish


def test_a_model_that_does_not_batch_keeps_its_whole_shape() -> None:
    config = completed(None, max_batch_rows=0)
    assert config["input"][0]["dims"] == [-1, 3, 224]
    assert "dynamic_batching" not in config


def test_what_was_asked_stays() -> None:
    config = completed(
        'platform: "onnxruntime_onnx" max_batch_size: 8 instance_group { count: 3 } version_policy { all { } }\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] format: FORMAT_NONE }\n'
        "dynamic_batching { preferred_batch_size: 4 max_queue_delay_microseconds: 50 }\n"
        'parameters { key: "execution_mode" value { string_value: "1" } }'
    )
    assert (config["platform"], config["backend"]) == ("onnxruntime_onnx", "openvino")
    assert config["input"][0]["dims"] == [3, 224]  # as the model has it
    assert config["instance_group"][0]["count"] == 3
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert config["version_policy"] == {"all": {}}
    assert config["dynamic_batching"]["preferred_batch_size"] == [4]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 50
    assert config["parameters"] == {"execution_mode": {"string_value": "1"}}


def test_another_backend_is_named_beside_ours() -> None:
    config = completed('backend: "onnxruntime"')
    assert config["backend"] == "openvino"
    assert config["parameters"] == {"fastserve_requested_backend": {"string_value": "onnxruntime"}}


def test_json_has_numbers_as_numbers() -> None:
    text = json.dumps(completed("version_policy { specific { versions: [ 12345678901 ] } }"))
    assert "12345678901]" in text
    assert '"12345678901"' not in text
