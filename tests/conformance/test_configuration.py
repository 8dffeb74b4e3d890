"""Scheduling from config.pbtxt and model.yaml: served, and shown to real clients as Triton's configuration."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_server import RunningServer, command

PBTXT = """
name: "spelled" backend: "identity" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
instance_group { name: "pair" count: 2 kind: KIND_CPU host_policy: "first" rate_limiter {
  priority: 2 resources { name: "R1" count: 1 } } }
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { max_queue_size: 64 default_timeout_microseconds: 2000000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value { max_queue_size: 8 timeout_action: DELAY } }
}
parameters { key: "target_p99_ms" value { string_value: "250" } }
model_warmup { name: "ones" batch_size: 2 inputs { key: "x" value {
  data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "ones.bin" } } }
"""

YAML = """
backend: identity
max_batch_size: 8
inputs: [{name: x, datatype: FP32, dims: [4]}]
outputs: [{name: x, datatype: FP32, dims: [4]}]
scheduling:
  target_p99_ms: 250
  max_queue_delay_us: 100
  preferred_batch_sizes: [4, 8]
  queue: {max_requests: 64, timeout_ms: 2000}
  priorities:
    levels: 3
    default: 2
    queues: {1: {max_requests: 8, timeout_ms: 0, on_timeout: delay, request_may_lower: false}}
instances: [{name: pair, count: 2, host_policy: first, resources: [{name: R1}], rate_priority: 2}]
warm_up: [{name: ones, batch_size: 2, inputs: {x: {datatype: FP32, dims: [4], file: ones.bin}}}]
"""

BATCHING = "max_batch_size { value: 4 } max_enqueued_batches { value: 3 } allowed_batch_sizes: [ 2, 4 ]"


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("configuration")
    files = {
        "spelled/config.pbtxt": PBTXT,
        "ours/model.yaml": YAML,
        "broken/model.yaml": "max_batch_size: 4\nscheduling:\n  preferred_batch_sizes: [8]\n",
        "served/model.yaml": "backend: identity\ninputs: [{name: x, datatype: FP32, dims: [4]}]\n"
        "outputs: [{name: x, datatype: FP32, dims: [4]}]\nmax_batch_size: 4\n",
        "served/1/batching_params.pbtxt": BATCHING,
    }
    for name, text in files.items():
        path = folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for model in ("spelled", "ours", "broken"):
        (folder / "models" / model / "1").mkdir()
        (folder / "models" / model / "warmup").mkdir()
        (folder / "models" / model / "warmup/ones.bin").write_bytes(np.ones(4, np.float32).tobytes())
    arguments = ("--host-policy", "first,cpu-cores=0", "--rate-limit", "execution_count")
    with RunningServer(folder / "models", folder, *arguments) as running:
        yield running
        running.signal()
        assert running.wait() == 0, running.log()


def configuration(client: Any, model: str) -> Any:
    answer = client.json("get_model_config", model)
    return answer["config"] if client.is_grpc else answer


@pytest.fixture(params=["grpc", "http"])
def triton(
    request: pytest.FixtureRequest, configured: RunningServer, client_class: Callable[..., Any]
) -> Any:
    client = client_class(request.param, configured)
    yield client
    client.close()


@pytest.mark.parametrize("model", ["spelled", "ours"])
def test_model_config_has_what_was_asked(model: str, triton: Any) -> None:
    config = configuration(triton, model)
    batching = config["dynamic_batching"]
    assert [int(rows) for rows in batching["preferred_batch_size"]] == [4, 8]
    assert int(batching["max_queue_delay_microseconds"]) == 100
    assert (int(batching["priority_levels"]), int(batching["default_priority_level"])) == (3, 2)
    default, first = batching["default_queue_policy"], batching["priority_queue_policy"]["1"]
    assert (int(default["max_queue_size"]), default["allow_timeout_override"]) == (64, True)
    assert int(default["default_timeout_microseconds"]) == 2_000_000
    assert (int(first["max_queue_size"]), first["timeout_action"]) == (8, "DELAY")
    (group,) = config["instance_group"]
    assert (group["name"], int(group["count"]), group["host_policy"]) == ("pair", 2, "first")
    assert int(group["rate_limiter"]["priority"]) == 2
    assert group["rate_limiter"]["resources"][0]["name"] == "R1"
    assert config["parameters"]["target_p99_ms"]["string_value"] == "250"
    assert config["model_warmup"][0]["inputs"]["x"]["input_data_file"] == "ones.bin"


@pytest.mark.parametrize("model", ["spelled", "ours"])
@pytest.mark.parametrize("priority", [0, 1, 3])
def test_such_a_model_is_served(model: str, priority: int, triton: Any) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    answer = triton.infer(model, {"x": ("FP32", rows)}, priority=priority, timeout=1_000_000)
    np.testing.assert_array_equal(answer.as_numpy("x"), rows)


def test_batching_parameters_of_a_version_are_shown(triton: Any) -> None:
    config = configuration(triton, "served")
    assert int(config["dynamic_batching"]["default_queue_policy"]["max_queue_size"]) == 12
    assert config["parameters"]["allowed_batch_sizes"]["string_value"] == "2,4"


def test_what_is_wrong_is_in_the_index(triton: Any) -> None:
    index = triton.json("get_model_repository_index")
    (broken,) = (m for m in (index["models"] if triton.is_grpc else index) if m["name"] == "broken")
    assert (
        "broken/model.yaml:3: scheduling.preferred_batch_sizes[0]: 8 is above max_batch_size 4"
        in broken["reason"]
    )


def test_both_spellings_are_one_configuration(triton: Any) -> None:
    configs = [configuration(triton, model) for model in ("spelled", "ours")]
    for config in configs:
        del config["name"]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--host-policy", "cpu"), "--host-policy: got 'cpu', want NAME,cpu-cores=0-3"),
        (("--rate-limit-resource", "R"), "--rate-limit-resource: got 'R', want NAME:COUNT"),
        (("--rate-limit-resource", "R:1"), "needs --rate-limit execution_count"),
        (("--batching-parameters-file", "/nowhere"), "--batching-parameters-file: /nowhere: No such file"),
        (("--target-p99-ms", "-1"), "expected a number from 0 to 3600000"),
    ],
)
def test_settings_that_are_wrong_end_the_start(
    arguments: tuple[str, str], message: str, tmp_path: Path
) -> None:
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    done = subprocess.run(
        command("serve", "--model-repository", str(tmp_path), *ports, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stderr
