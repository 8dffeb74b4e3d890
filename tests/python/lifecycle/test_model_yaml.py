"""model.yaml: the same settings as config.pbtxt, and what is refused in which line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from fastserve import lifecycle, protos
from fastserve.lifecycle import model_yaml_schema as schema
from fastserve.lifecycle.model_config import read_config
from fastserve.lifecycle.model_yaml import read_model_yaml
from fastserve.lifecycle.settings import Settings, VersionPolicy
from fastserve.lifecycle.yaml_errors import model_in
from fastserve.lifecycle.yaml_lines import read_yaml
from fastserve.scheduling import Instances, Priorities, Queue, Resource, Scheduling

POLICIES = {"left": (0, 1)}


def good(text: str) -> Settings:
    settings, problems = read_model_yaml("m", text, POLICIES)
    assert [str(problem) for problem in problems] == []
    assert settings is not None
    return settings


def message_of(settings: Settings) -> Any:
    return protos.message_class("inference.ModelConfig").FromString(settings.asked)


WHOLE = """\
# everything there is
name: m
backend: openvino
file: net.onnx
max_batch_size: 32
inputs:
  - {name: image, datatype: FP32, dims: [3, -1, 224], format: NCHW}
outputs:
  - {name: scores, datatype: FP32, dims: [10], labels: names.txt}
versions: {latest: 2}
scheduling:
  target_p99_ms: 25
  max_queue_delay_us: 100
  preferred_batch_sizes: [8, 16]
  allowed_batch_sizes: [1, 8, 32]
  max_request_rows: 256
  preserve_order: false
  queue: {max_requests: 1024, timeout_ms: 500, on_timeout: reject, request_may_lower: true}
  priorities: {levels: 3, default: 2, queues: {1: {max_requests: 64}}}
instances:
  - {count: 2, name: a, cpus: "0-1", resources: [{name: R1, count: 2}, {name: R2, global: true}], rate_priority: 3}
  - {count: 1, host_policy: left}
response_cache: true
warm_up:
  - {name: w, batch_size: 4, count: 2, inputs: {image: {datatype: FP32, dims: [3, 224, 224], fill: random}}}
parameters: {NUM_STREAMS: 2, ENABLE_CPU_PINNING: NO, INFERENCE_PRECISION_HINT: f32}
"""

SAME = """
name: "m" backend: "openvino" default_model_filename: "net.onnx" max_batch_size: 32
input { name: "image" data_type: TYPE_FP32 dims: [ 3, -1, 224 ] format: FORMAT_NCHW }
output { name: "scores" data_type: TYPE_FP32 dims: 10 label_filename: "names.txt" }
version_policy { latest { num_versions: 2 } }
parameters { key: "target_p99_ms" value { string_value: "25" } }
parameters { key: "allowed_batch_sizes" value { string_value: "1,8,32" } }
parameters { key: "max_request_batch_size" value { string_value: "256" } }
parameters { key: "NUM_STREAMS" value { string_value: "2" } }
parameters { key: "ENABLE_CPU_PINNING" value { string_value: "NO" } }
parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "f32" } }
dynamic_batching {
  max_queue_delay_microseconds: 100 preferred_batch_size: [ 8, 16 ]
  priority_levels: 3 default_priority_level: 2
  default_queue_policy { max_queue_size: 1024 default_timeout_microseconds: 500000 allow_timeout_override: true }
  priority_queue_policy { key: 1 value {
    max_queue_size: 64 default_timeout_microseconds: 500000 allow_timeout_override: true } }
}
instance_group { count: 2 name: "a" kind: KIND_CPU host_policy: "cpu-cores=0-1" rate_limiter {
  priority: 3 resources { name: "R1" count: 2 } resources { name: "R2" global: true count: 1 } } }
instance_group { count: 1 kind: KIND_CPU host_policy: "left" }
response_cache { enable: true }
model_warmup { name: "w" batch_size: 4 count: 2 inputs { key: "image" value {
  data_type: TYPE_FP32 dims: [ 3, 224, 224 ] random_data: true } } }
"""


def test_one_meaning_in_two_spellings() -> None:
    ours = good(WHOLE)
    theirs, problems = read_config("m", SAME, POLICIES)
    assert problems == []
    assert theirs is not None
    assert message_of(ours) == message_of(theirs)  # what clients see
    for name in ("backend", "file_name", "max_batch_rows", "inputs", "outputs", "version_policy"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.scheduling == theirs.scheduling
    assert ours.parameters == theirs.parameters
    assert [(f.output, f.name) for f in ours.label_files] == [("scores", "names.txt")]
    assert ours.label_files[0].line == 9


def test_scheduling_in_our_words() -> None:
    scheduling = good(WHOLE).scheduling
    assert scheduling.queue == Queue(1024, 500)
    # Keys that a level leaves out are those of scheduling.queue.
    assert scheduling.priorities == Priorities(3, 2, {1: Queue(64, 500)})
    assert scheduling.instances == (
        Instances(2, "a", (0, 1), (Resource("R1", 2), Resource("R2", is_global=True)), 3),
        Instances(1, cpus=(0, 1)),
    )


def test_an_empty_file_asks_for_nothing() -> None:
    settings = good("")
    assert (settings.max_batch_rows, settings.scheduling) == (-1, Scheduling())
    assert good("# nothing\n").asked == settings.asked


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("versions: all", VersionPolicy(latest=0)),
        ("versions: {specific: [3, 1]}", VersionPolicy(specific=(1, 3))),
        ("versions: {latest: 3}", VersionPolicy(latest=3)),
    ],
)
def test_versions(text: str, policy: VersionPolicy) -> None:
    assert good(text).version_policy == policy


def test_short_forms() -> None:
    assert good("instances: 3").scheduling.instances == (Instances(3),)
    assert good("instances: [{cpus: 1}]").scheduling.instances == (Instances(cpus=(1,)),)


def test_a_queue_policy_holds_without_batching() -> None:
    settings = good("max_batch_size: 0\nscheduling: {queue: {max_requests: 3}}")
    assert (settings.max_batch_rows, settings.scheduling.max_queue_requests) == (0, 3)
    assert message_of(settings).dynamic_batching.default_queue_policy.max_queue_size == 3


def test_warm_up_data_in_a_file() -> None:
    settings = good("warm_up:\n- inputs:\n    x:\n      {datatype: FP32, dims: [2], file: x.bin}")
    (file,) = settings.warm_up_files
    assert (file.name, file.field, file.line) == ("x.bin", "warm_up[0].inputs.x.file", 4)
    assert settings.scheduling.warm_up[0].inputs["x"].fill == "data"


# (text, [(line, what the message holds)])
REFUSED: list[tuple[str, list[tuple[int, str]]]] = [
    ("a: [", [(1, "is not YAML")]),
    ("name: m\nfile: a\0b", [(2, "has a character that YAML does not allow (U+0000)")]),
    ("name: m\nmax_batch_size: !!int", [(2, "'' is no int")]),
    ("- a", [(1, "the file: got ['a'], want a mapping (key: value)")]),
    ("name: m\nname: m", [(2, "'name' is given twice (first in line 1)")]),
    ("a: &x {b: 1}\nc: *x", [(1, "aliases (*name) are not supported")]),
    ("parameters: !!python/object:os.system {}", [(1, "the tag tag:yaml.org,2002:python/object:os.system")]),
    ("name: !mine x", [(1, "the tag !mine is not supported")]),
    ("[" * 5000, [(0, "nested too deeply")]),
    ("? [a]\n: b", [(1, "a key is not a text or number")]),
    # keys
    ("max_batch_sizes: 1", [(1, "unknown key 'max_batch_sizes' (did you mean max_batch_size?)")]),
    (
        "scheduling:\n  queue:\n    timeout: 5\n  preserve_ordering: true",
        [
            (3, "unknown key 'scheduling.queue.timeout' (did you mean timeout_ms?)"),
            (4, "unknown key 'scheduling.preserve_ordering' (did you mean preserve_order?)"),
        ],
    ),
    (
        "instances:\n- resources:\n  - {name: R, globl: true}",
        [(3, "unknown key 'instances[0].resources[0].globl' (did you mean global?)")],
    ),
    ("warm_up:\n- inputs: {x: {dims: [1]}}", [(2, "warm_up[0].inputs.x.datatype is missing")]),
    ("scheduling: {priorities: {default: 1}}", [(1, "scheduling.priorities.levels is missing")]),
    # values
    ("max_batch_size: many", [(1, "max_batch_size: got 'many', want an integer")]),
    ("max_batch_size: -1", [(1, "max_batch_size: got -1, want at least 0")]),
    ("max_batch_size:", [(1, "max_batch_size: got nothing, want an integer")]),
    ("max_batch_size: true", [(1, "max_batch_size: got true, want an integer")]),
    ("response_cache: 1", [(1, "response_cache: got 1, want true or false")]),
    ("name: other", [(1, "name: got 'other', but the folder is named 'm'")]),
    ("scheduling:\n  target_p99_ms: -1", [(2, "scheduling.target_p99_ms: got -1, want at least 0")]),
    ("scheduling:\n  target_p99_ms: .inf", [(2, "scheduling.target_p99_ms: got inf, want a number")]),
    ("scheduling: {target_p99_ms: 3600001}", [(1, "want at most 3600000")]),
    (
        "scheduling:\n  queue: {on_timeout: wait}",
        [(2, "scheduling.queue.on_timeout: got 'wait', want reject or delay")],
    ),
    ("inputs:\n- {name: x, datatype: FP31, dims: [1]}", [(2, "inputs[0].datatype: got 'FP31', want BOOL")]),
    ("inputs: {name: x}", [(1, "inputs: got {'name': 'x'}, want a list")]),
    (
        "inputs:\n- {name: '', datatype: FP32, dims: [1]}",
        [(2, "inputs[0].name: got '', want a text that is not")],
    ),
    ("inputs:\n- {name: x, datatype: FP32,\n dims: [0]}", [(3, 'input "x": dims[0]: got 0')]),
    ("versions: [1]", [(1, "versions: got [1], want a mapping")]),
    ("versions: {latest: 1, specific: [1]}", [(1, "versions: want one of latest, specific, all")]),
    ("versions:\n  specific: []", [(1, "versions.specific: versions is empty")]),
    ("backend: dali", [(1, "backend: 'dali' is not available here")]),
    ("\nfile: ../x", [(2, "file: '../x' leaves the version directory")]),
    (
        "outputs:\n- {name: y, datatype: FP32, dims: [1],\n   labels: ../x}",
        [(3, "outputs.labels: '../x' leaves the model's folder")],
    ),
    # together
    (
        "max_batch_size: 4\nscheduling:\n  preferred_batch_sizes:\n  - 2\n  - 8",
        [(5, "scheduling.preferred_batch_sizes[1]: 8 is above max_batch_size 4")],
    ),
    (
        "max_batch_size: 0\nscheduling:\n  max_queue_delay_us: 1",
        [(3, "scheduling.max_queue_delay_us: needs max_batch_size above 0")],
    ),
    (
        "scheduling:\n  priorities:\n    levels: 2\n    default: 3\n    queues:\n      3: {}",
        [
            (4, "scheduling.priorities.default: got 3, want 1 to 2"),
            (6, "scheduling.priorities.queues[3]: got priority 3, want 1 to 2"),
        ],
    ),
    ("scheduling: {priorities: {levels: 2, queues: {one: {}}}}", [(1, "want an integer")]),
    ("instances:\n- cpus: 3-1", [(2, "instances[0].cpus: got '3-1', want ascending CPU numbers")]),
    ("instances:\n- cpus: '1'\n  host_policy: left", [(2, "instances[0].cpus: is given beside host_policy")]),
    ("parameters:\n  target_p99_ms: 5", [(2, "parameters.target_p99_ms: is a knob of its own here")]),
    (
        "inputs:\n- {name: x, datatype: FP32, dims: [2]}\nwarm_up:\n- inputs:\n    y: {datatype: FP32, dims: [2]}",
        [(4, 'warm_up[0].inputs: input "x" is missing'), (5, "the model has no such input; there are x")],
    ),
    (
        "warm_up:\n- inputs:\n    y: {datatype: FP32, dims: [2], file: a, fill: zero}",
        [(3, "warm_up[0].inputs.y: want fill or file, got both")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_refused_with_file_and_line(text: str, expected: list[tuple[int, str]]) -> None:
    settings, problems = read_model_yaml("m", text, POLICIES)
    assert settings is None
    assert [problem.line for problem in problems] == [line for line, _ in expected]
    for problem, (line, fragment) in zip(problems, expected, strict=True):
        assert str(problem).startswith(f"m/model.yaml:{line}: " if line else "m/model.yaml: ")
        assert fragment in problem.message
        assert "\n" not in problem.message


def test_an_unknown_host_policy_is_without_effect() -> None:
    (note,) = good("instances: [{host_policy: far}]").notes
    assert "instances[0].host_policy 'far' is without effect" in note


def test_the_example_of_the_documentation_is_right_and_complete() -> None:
    text = (Path(lifecycle.__file__).parent / "README.md").read_text()
    example = text.partition("```yaml\n")[2].partition("```")[0].replace("name: digits ", "name: m ")
    settings, problems = read_model_yaml("m", example, {"far": (0,)})
    assert problems == []
    assert settings is not None
    written = read_yaml(example, texts=("parameters",)).lines
    for path in paths(schema.ModelYaml):
        if path[-1] not in {"file", "specific", "all"}:  # shown in a comment
            assert any(tuple(p for p in at if isinstance(p, str)) == path for at in written), path
    table = text.partition("## Scheduling")[2]
    knobs = {f.name for f in fields(Scheduling)} | {f"queue.{f.name}" for f in fields(Queue)}
    for knob in knobs | {f"priorities.{f.name}" for f in fields(Priorities)}:
        assert f"| `{knob}" in table or f"| `{knob.partition('.')[0]}" in table, knob


def paths(model: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Keys of the schema; what is below keys that a user chooses is left out."""
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        yield path
        inner = model_in(field.annotation)
        if inner is not None and name not in {"queues", "inputs"}:
            yield from paths(inner, path)
