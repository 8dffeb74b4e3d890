"""What ModelConfig says of a loaded version."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from fastserve.lifecycle import ModelDefaults, completed_config, config_json
from fastserve.lifecycle.batching_parameters import apply, parse_batching_parameters
from fastserve.lifecycle.model_config import read_config, without_config
from fastserve.lifecycle.settings import Settings


def status(**fields: Any) -> Any:
    known = {
        "backend": "openvino",
        "platform": "openvino",
        "max_batch_rows": 8,
        "instance_count": 2,
        "inputs": [SimpleNamespace(name="x", datatype="FP32", shape=[-1, 3, 224], optional=False)],
        "outputs": [SimpleNamespace(name="y", datatype="BYTES", shape=[-1, 10], optional=False)],
    }
    return SimpleNamespace(**(known | fields))


def completed(text: str | None, defaults: ModelDefaults | None = None, **fields: Any) -> dict[str, Any]:
    defaults = defaults or ModelDefaults({"openvino": {"CACHE_DIR": "/c"}})
    policies = defaults.host_policies
    settings = without_config("m") if text is None else read_config("m", text, policies)[0]
    assert settings is not None
    spec = settings.version_spec(1, "openvino", "/r/m/1/model.onnx", defaults)
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


def test_scheduling_stays_as_it_was_asked() -> None:
    config = completed(
        'max_batch_size: 8 instance_group { count: 2 host_policy: "left" rate_limiter { priority: 2\n'
        '  resources { name: "R1" count: 3 } } }\n'
        "dynamic_batching { priority_levels: 3 default_priority_level: 2\n"
        "  default_queue_policy { max_queue_size: 9 timeout_action: DELAY default_timeout_microseconds: 1500 }\n"
        "  priority_queue_policy { key: 1 value { max_queue_size: 4 allow_timeout_override: true } } }\n"
        "response_cache { enable: true }\n"
        'parameters { key: "target_p99_ms" value { string_value: "25" } }',
        ModelDefaults(host_policies={"left": (0, 1)}, target_p99_ms=7),
    )
    group = config["instance_group"][0]
    assert (group["count"], group["host_policy"]) == (2, "left")
    assert group["rate_limiter"] == {
        "priority": 2,
        "resources": [{"name": "R1", "global": False, "count": 3}],
    }
    batching = config["dynamic_batching"]
    assert (batching["priority_levels"], batching["default_priority_level"]) == (3, 2)
    assert batching["default_queue_policy"] == {
        "timeout_action": "DELAY",
        "default_timeout_microseconds": 1500,
        "allow_timeout_override": False,
        "max_queue_size": 9,
    }
    assert list(batching["priority_queue_policy"]) == ["1"]
    assert batching["priority_queue_policy"]["1"]["max_queue_size"] == 4
    assert config["response_cache"] == {"enable": True}
    assert config["parameters"] == {"target_p99_ms": {"string_value": "25"}}


def test_what_the_server_says_for_all_models_is_shown() -> None:
    batching, errors = parse_batching_parameters(
        "max_batch_size { value: 8 } batch_timeout_micros { value: 70 } max_enqueued_batches { value: 3 }\n"
        "allowed_batch_sizes: [ 2, 8 ] num_batch_threads { value: 2 }"
    )
    assert errors == []
    own = Settings("m", asked=without_config("m").asked)
    applied = apply(batching, own.max_batch_rows, own.scheduling)
    spec = Settings("m", max_batch_rows=8, scheduling=applied.scheduling, asked=own.asked).version_spec(
        1, "openvino", "/r/m/1/model.onnx", ModelDefaults(target_p99_ms=12.5, host_policies={"cpu": (0,)})
    )
    config = config_json(completed_config(spec, status()))
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 70
    assert config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] == 24
    assert config["parameters"]["allowed_batch_sizes"] == {"string_value": "2,8"}
    assert config["parameters"]["target_p99_ms"] == {"string_value": "12.5"}
    assert config["instance_group"][0]["count"] == 2


def test_the_host_policy_of_models_without_groups() -> None:
    config = completed(None, ModelDefaults(host_policies={"cpu": (0, 1)}))
    assert [(g["count"], g["host_policy"]) for g in config["instance_group"]] == [(2, "cpu")]
