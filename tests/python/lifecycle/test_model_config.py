"""A corpus of config.pbtxt files: what is understood, and what is refused in which line."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fastserve import protos
from fastserve.lifecycle.model_config import Settings, VersionPolicy, name_error, read_config
from fastserve.lifecycle.pbtxt import Positions
from fastserve.lifecycle.triton_scheduling import TritonScheduling
from fastserve.lifecycle.triton_write import write_scheduling
from fastserve.lifecycle.version_spec import TensorShape
from fastserve.scheduling import (
    Instances,
    Priorities,
    Queue,
    Resource,
    Scheduling,
    WarmUp,
    WarmUpInput,
)

INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: [ 3 ] }'


def good(text: str, model: str = "m", host_policies: Mapping[str, tuple[int, ...]] | None = None) -> Settings:
    settings, problems = read_config(model, text, host_policies)
    assert [str(problem) for problem in problems] == []
    assert settings is not None
    return settings


# (text, [(line, what the message holds)]): all problems, in the order of the lines
REFUSED: list[tuple[str, list[tuple[int, str]]]] = [
    # not text protobuf
    ("name m", [(1, "")]),
    ("input {", [(1, 'Expected "}"')]),
    ("\n\nmax_batch_size: abc", [(3, "Couldn't parse integer: abc")]),
    ("max_batch_size: 99999999999", [(1, "out of range")]),
    ("max_batch_size: 1\n\nmax_batch_size: 2", [(3, "max_batch_size is given twice")]),
    ('name: "m\n', [(1, "")]),
    ("{{{{", [(1, "")]),
    ("a {" * 3000, [(1, "")]),
    # unknown: every one of them, whatever its line
    ("foo: 1", [(1, "unknown field 'foo'")]),
    ("max_batch_sizes: 1", [(1, "unknown field 'max_batch_sizes' (did you mean max_batch_size?)")]),
    ("foo: 1\n# bar\nbar { baz: 2 }", [(1, "'foo'"), (3, "'bar'")]),
    (
        'input {\n  name: "x"\n  data_type: TYPE_FP32\n  dims: 1\n  dimz: [1,\n2]\n}',
        [(5, "unknown field 'input.dimz' (did you mean dims?)"), (6, "input.dimz")],
    ),
    (
        'input {\n name: "x"\n data_type: TYPE_FLOAT\n dims: 1 }',
        [(3, "TYPE_FLOAT is not a value of DataType")],
    ),
    ("instance_group {\n  kind: KIND_TPU }", [(2, "KIND_TPU is not a value of Kind")]),
    # not supported yet
    ("\nsequence_batching { }", [(2, "sequence_batching is not supported yet")]),
    (
        "sequence_batching {\n max_sequence_idle_microseconds: 1\n}",
        [(1, "sequence_batching is not supported yet")],
    ),
    (
        'platform: "ensemble"\nensemble_scheduling {\n}',
        [(1, "'ensemble' is not available"), (2, "ensemble_scheduling")],
    ),
    (INPUT[:-1] + "\nreshape { shape: [ ] } }", [(2, "input.reshape is not supported yet")]),
    (INPUT[:-1] + "\nallow_ragged_batch: true }", [(2, "input.allow_ragged_batch is not supported yet")]),
    (
        'output [\n { name: "a" data_type: TYPE_FP32 dims: 1 },\n { name: "b" data_type: TYPE_FP32 dims: 1\n'
        '   label_filename: "../labels.txt" }\n]',
        [(4, "output.label_filename: '../labels.txt' leaves the model's folder")],
    ),
    (
        'batch_input [ {\n kind: BATCH_ELEMENT_COUNT target_name: "c" } ]',
        [(1, "batch_input is not supported yet")],
    ),
    ("model_transaction_policy {\n decoupled: true }", [(2, "model_transaction_policy.decoupled")]),
    ('metric_tags { key: "a" value: "b" }', [(1, "metric_tags is not supported yet")]),
    ('cc_model_filenames { key: "8.0" value: "x.plan" }', [(1, "cc_model_filenames is not supported yet")]),
    ("instance_group [ {}, {\n passive: true } ]", [(2, "instance_group.passive is not supported yet")]),
    # impossible
    ('name: "other"', [(1, "got 'other', but the folder is named 'm'")]),
    ('backend: "dali"', [(1, "backend: 'dali' is not available here; there are openvino, identity")]),
    ('backend: "python"\nplatform: "onnxruntime_onnx"', [(2, "does not go with backend 'python'")]),
    ('platform: "tensorrt_plan"\nbackend: "pytorch"', [(1, "does not go with backend 'pytorch'")]),
    ('backend: "identity"\nplatform: "onnxruntime_onnx"', [(2, "does not go with backend 'identity'")]),
    ("max_batch_size: -1", [(1, "max_batch_size: got -1, want at least 0")]),
    ("max_batch_size: 0\ndynamic_batching { }", [(2, "needs max_batch_size above 0, got 0")]),
    (f"{INPUT}\ndynamic_batching {{ }}", [(2, "needs max_batch_size above 0, got none")]),
    (
        "max_batch_size: 4\ndynamic_batching { preferred_batch_size: [ 2,\n 8 ] }",
        [(3, "preferred_batch_size: 8 is above max_batch_size 4")],
    ),
    ("max_batch_size: 4\ndynamic_batching {\npreferred_batch_size: 0 }", [(3, "got 0, want at least 1")]),
    (
        "max_batch_size: 4\ndynamic_batching {\nmax_queue_delay_microseconds: 9999999999 }",
        [(3, "got 9999999999, want at most 3600000000")],
    ),
    ('input { name: "x"\n dims: 1 }', [(1, 'input "x": data_type is missing')]),
    ('input { name: "x" data_type: TYPE_FP32 }', [(1, 'input "x": dims is missing')]),
    ("input { data_type: TYPE_FP32 dims: 1 }", [(1, "input[0]: name is missing")]),
    (f"{INPUT}\n{INPUT.replace('[ 3 ]', '4')}", [(2, 'input "x" is given twice')]),
    (
        'input { name: "x" data_type: TYPE_FP32 dims: [ 1,\n 0, -1,\n -2 ] }',
        [(2, "dims[1]: got 0"), (3, "dims[3]: got -2")],
    ),
    (INPUT[:-1] + "\nformat: FORMAT_NCHW }", [(2, "format is for images of 3 dims, got 1")]),
    ("version_policy { specific { versions: [ 1,\n 0 ] } }", [(2, "got 0, want at least 1")]),
    ("\nversion_policy { specific { } }", [(2, "versions is empty")]),
    ("version_policy { all { }\n latest { } }", [(2, "only one")]),
    (
        "instance_group [ { count: 1 },\n { kind: KIND_GPU\n gpus: [ 0 ] } ]",
        [(1, "KIND_AUTO beside KIND_GPU, want one kind")],
    ),
    ("instance_group { kind: KIND_CPU\ngpus: [ 0 ] }", [(2, "gpus goes with KIND_GPU, got KIND_CPU")]),
    ("instance_group { count: -1 }", [(1, "instance_group.count: got -1, want 1 to 1024")]),
    ("instance_group {\ncount: 100000 }", [(2, "instance_group.count: got 100000")]),
    ('default_model_filename: "../other/1/model.onnx"', [(1, "leaves the version directory")]),
    ('default_model_filename: "/etc/passwd"', [(1, "leaves the version directory")]),
    ('backend: "identity"\ndefault_model_filename: "x"', [(2, "backend identity has no model file")]),
    (
        'backend: "tensorflow"\nparameters {\n  key: "TF_SIGNATURE_DEF"\n  value { string_value: "s" }\n}',
        [(3, "'TF_SIGNATURE_DEF' of tensorflow has no counterpart on OpenVINO")],
    ),
    (
        'optimization { execution_accelerators {\n cpu_execution_accelerator [ {\n name: "tvm" } ] } }',
        [(2, "'tvm' is not supported yet")],
    ),
    # scheduling
    (
        "max_batch_size: 1\ndynamic_batching {\n preserve_ordering: true\n priority_levels: 2\n default_priority_level: 1 }",
        [(4, "priority_levels: got 2, but answers in the order of the requests allow one level")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n preserve_ordering: true\n default_queue_policy {\n"
        " timeout_action: DELAY\n default_timeout_microseconds: 5 } }",
        [(5, "default_queue_policy.timeout_action: delay does not go with")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n priority_levels: 2\n default_priority_level: 3 }",
        [(4, "dynamic_batching.default_priority_level: got 3, want 1 to 2")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n priority_levels: 2 }",
        [(3, "dynamic_batching.default_priority_level: got 0, want 1 to 2")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n priority_levels: 5000\n default_priority_level: 1 }",
        [(3, "dynamic_batching.priority_levels: got 5000, want 0 to 1024")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n priority_levels: 2 default_priority_level: 1\n"
        " priority_queue_policy { key: 1 value { } }\n priority_queue_policy {\n key: 3\n value { } } }",
        [(6, "dynamic_batching.priority_queue_policy[3]: got priority 3, want 1 to 2")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching {\n priority_levels: 2 default_priority_level: 1\n"
        " priority_queue_policy [ { key: 2\n value {\n default_timeout_microseconds: 86400001000 } } ] }",
        [
            (
                6,
                "priority_queue_policy[2].default_timeout_microseconds: got 86400001 ms, want 0 (none) to 86400000",
            )
        ],
    ),
    (
        "max_batch_size: 1\ndynamic_batching { default_queue_policy {\n default_timeout_microseconds: -1 } }",
        [(3, "-1")],
    ),
    (
        "max_batch_size: 1\ndynamic_batching { default_queue_policy {\n max_queue_size: 4294967295 } }",
        [(3, "default_queue_policy.max_queue_size: got 4294967295, want 0 (no own limit) to 1073741824")],
    ),
    (
        'instance_group { rate_limiter {\n resources [ {\n count: 2 }, { name: "R"\n } ] } }',
        [
            (2, "instance_group.rate_limiter.resources.name: is empty"),
            (3, "resources.count: got 0, want 1 to"),
        ],
    ),
    (
        'instance_group { rate_limiter { resources { name: "R" count: 1 }\n resources {\n name: "R" count: 1 } } }',
        [(3, "resources.name: 'R' is given twice")],
    ),
    ('instance_group {\n host_policy: "cpu-cores=3-1" }', [(1, "instance_group.host_policy: got '3-1'")]),
    ("instance_group { count: 1000 }\ninstance_group { count: 25 }", [(1, "got 1025 instances in all")]),
    # our own parameters
    (
        'parameters {\n key: "target_p99_ms"\n value { string_value: "soon" } }',
        [(2, "parameters: target_p99_ms: got 'soon', want a number of milliseconds")],
    ),
    ('parameters { key: "target_p99_ms" value { string_value: "-1" } }', [(1, "got '-1', want a number")]),
    ('parameters { key: "target_p99_ms" value { string_value: "nan" } }', [(1, "got 'nan', want a number")]),
    (
        'parameters { key: "target_p99_ms" value { string_value: "9999999" } }',
        [(1, "want 0 (none) to 3600000")],
    ),
    (
        'max_batch_size: 8\nparameters { key: "allowed_batch_sizes"\n value { string_value: "1,4" } }',
        [(2, "parameters: allowed_batch_sizes: the last is 4, want max_batch_size, which is 8")],
    ),
    (
        'max_batch_size: 8\nparameters { key: "allowed_batch_sizes" value { string_value: "4,2,8" } }',
        [(2, "2 comes after 4, want them ascending")],
    ),
    (
        'max_batch_size: 8\nparameters { key: "allowed_batch_sizes" value { string_value: "4;8" } }',
        [(2, "got '4;8', want batch sizes such as 1,4,8")],
    ),
    (
        'max_batch_size: 0\nparameters { key: "allowed_batch_sizes" value { string_value: "1" } }',
        [(2, "allowed_batch_sizes: needs max_batch_size above 0")],
    ),
    (
        'max_batch_size: 8\nparameters { key: "max_request_batch_size" value { string_value: "7" } }',
        [(2, "max_request_batch_size: got 7, want 8 (a batch) to")],
    ),
    # warm-up
    ('model_warmup [ {\n name: "w" } ]', [(1, "model_warmup.inputs: is empty")]),
    (
        'model_warmup { batch_size: 1 inputs {\n key: "x"\n value { dims: 1 zero_data: true } } }',
        [(3, 'model_warmup.inputs["x"].data_type: is missing')],
    ),
    (
        'model_warmup { inputs {\n key: "x"\n value { dims: 1 data_type: TYPE_FP32 } } }',
        [(2, 'model_warmup.inputs["x"]: has no data: give zero_data, random_data or input_data_file')],
    ),
    (
        f"{INPUT}\nmodel_warmup {{ inputs {{\n key: 'z'\n value {{ dims: 3 data_type: TYPE_FP32 zero_data: true }} }} }}",
        [(2, 'model_warmup.inputs: input "x" is missing'), (3, "the model has no such input; there are x")],
    ),
    (
        f"{INPUT}\nmodel_warmup {{ inputs {{ key: 'x'\n value {{\n dims: 4\n data_type: TYPE_FP64 random_data: true }} }} }}",
        [
            (4, 'model_warmup.inputs["x"].dims: got [4], but the input has [3]'),
            (5, "data_type: got FP64, but the input has FP32"),
        ],
    ),
    (
        "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 zero_data: true\n dims: -1 } } }",
        [(2, "dims: got -1, want sizes of at least 1")],
    ),
    (
        "model_warmup { inputs { key: 'x' value { data_type: TYPE_FP32 dims: 1\n input_data_file: '../x' } } }",
        [(2, "input_data_file: '../x' leaves the folder warmup")],
    ),
    (
        "max_batch_size: 4\nmodel_warmup {\n batch_size: 5 inputs { key: 'x'\n"
        " value { data_type: TYPE_FP32 dims: 1 zero_data: true } } }",
        [(3, "model_warmup.batch_size: got 5, want 1 to 4 (max_batch_size)")],
    ),
    (
        "max_batch_size: 0\nmodel_warmup { count: 10001 batch_size: 2 inputs { key: 'x'\n"
        " value { data_type: TYPE_FP32 dims: 1 zero_data: true } } }",
        [(2, "got 2, want 1 to 1 (the model does not batch)"), (2, "count: got 10001, want 1 to 10000")],
    ),
    # several at once
    (
        'name: "o"\nfoo: 1\nbatch_output { }',
        [(1, "folder is named"), (2, "unknown field 'foo'"), (3, "batch_output")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[text[:40] for text, _ in REFUSED])
def test_refused_with_file_and_line(text: str, expected: list[tuple[int, str]]) -> None:
    settings, problems = read_config("m", text)
    assert settings is None
    assert [problem.line for problem in problems] == [line for line, _ in expected]
    for problem, (line, fragment) in zip(problems, expected, strict=True):
        assert str(problem).startswith(f"m/config.pbtxt:{line}: ")
        assert fragment in problem.message
        assert "\n" not in problem.message


def test_a_whole_file() -> None:
    settings = good(
        """
        # comment { with: "brackets" }
        name: "m"
        platform: "openvino"
        max_batch_size: 8
        input [ { name: "x", data_type: TYPE_FP32, format: FORMAT_NCHW, dims: [ 3, -1, 224 ] },
                { name: "words" data_type: TYPE_STRING dims: 1 } ]
        output { name: "y" data_type: TYPE_INT64 dims: [ 10 ] }
        version_policy: { specific: { versions: [ 3, 1 ] } }
        instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_AUTO } ]
        dynamic_batching {
          preferred_batch_size: [ 8, 4 ]
          max_queue_delay_microseconds: 100
          default_queue_policy { max_queue_size: 7 }
        }
        default_model_filename: "net.onnx"
        parameters: { key: "NUM_STREAMS" value: { string_value: "2" } }
        parameters { key: "PERFORMANCE_HINT" value { string_value: "LATENCY" } }
        optimization { cuda { graphs: true } input_pinned_memory { enable: true } }
        """
    )
    assert settings.backend == "openvino"
    assert settings.max_batch_rows == 8
    assert settings.inputs == (
        TensorShape("x", "FP32", (-1, 3, -1, 224)),
        TensorShape("words", "BYTES", (-1, 1)),
    )
    assert settings.outputs == (TensorShape("y", "INT64", (-1, 10)),)
    assert settings.version_policy == VersionPolicy(specific=(1, 3))
    scheduling = settings.scheduling
    assert [group.count for group in scheduling.instances] == [2, 1]
    assert scheduling.preferred_batch_sizes == (8, 4)
    assert (scheduling.max_queue_delay_us, scheduling.max_queue_requests) == (100, 7)
    assert settings.file_name == "net.onnx"
    assert settings.parameters == (("NUM_STREAMS", "2"), ("PERFORMANCE_HINT", "LATENCY"))
    assert settings.notes == ()


def test_an_empty_file_asks_for_nothing() -> None:
    settings = good("")
    assert settings.max_batch_rows == -1
    assert (settings.backend, settings.inputs, settings.scheduling) == ("", (), Scheduling())


@pytest.mark.parametrize(
    ("text", "rows"),
    [("", -1), ("max_batch_size: 0", 0), ("max_batch_size: 4", 4), (INPUT, 0), ("dynamic_batching { }", -1)],
)
def test_max_batch_size_that_is_not_written(text: str, rows: int) -> None:
    """Without it and without tensors the model decides; dims that are written mean what they say."""
    assert good(text).max_batch_rows == rows


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", VersionPolicy(latest=1)),
        ("version_policy { latest { } }", VersionPolicy(latest=1)),
        ("version_policy { latest { num_versions: 3 } }", VersionPolicy(latest=3)),
        ("version_policy { all { } }", VersionPolicy(latest=0)),
        ("version_policy { specific { versions: 2 } }", VersionPolicy(specific=(2,))),
    ],
)
def test_version_policy(text: str, policy: VersionPolicy) -> None:
    assert good(text).version_policy == policy


@pytest.mark.parametrize(
    ("text", "backend", "file_name"),
    [
        ('backend: "openvino"', "openvino", ""),
        ('platform: "identity"', "identity", ""),
        ('platform: "onnxruntime_onnx"', "onnxruntime", ""),
        ('backend: "onnxruntime"', "onnxruntime", ""),
        ('backend: "onnxruntime" platform: "onnxruntime_onnx"', "onnxruntime", ""),
        ('backend: "python"', "python", ""),
        ('platform: "pytorch_libtorch"', "pytorch", ""),
        ('backend: "pytorch" platform: "pytorch_libtorch"', "pytorch", ""),
        ('backend: "openvino" platform: "onnxruntime_onnx"', "openvino", ""),
        ('platform: "tensorflow_savedmodel"', "openvino", "model.savedmodel"),
    ],
)
def test_backends_of_other_servers(text: str, backend: str, file_name: str) -> None:
    settings = good(text)
    assert (settings.backend, settings.file_name) == (backend, file_name)
    assert bool(settings.notes) == (file_name != "")  # who asks for another backend is told


def test_tuning_of_another_backend_is_without_effect_and_says_so() -> None:
    settings = good(
        'backend: "tensorflow" parameters { key: "TF_NUM_INTRA_THREADS" value { string_value: "1" } }'
    )
    assert settings.parameters == ()
    assert "TF_NUM_INTRA_THREADS" in settings.notes[1]


@pytest.mark.parametrize("backend", ["onnxruntime", "python", "pytorch"])
def test_a_backend_of_its_own_gets_its_parameters(backend: str) -> None:
    settings = good(f'backend: "{backend}" parameters {{ key: "k" value {{ string_value: "1" }} }}')
    assert settings.parameters == (("k", "1"),)


def test_defaults_of_refused_fields_are_no_demand() -> None:
    good("response_cache { enable: false } model_transaction_policy { decoupled: false }")
    good("max_batch_size: 1 dynamic_batching { preserve_ordering: false priority_levels: 0 }")
    good('optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }')


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "x" * 128, ".hidden", "..."[:2] + "a"])
def test_good_names(name: str) -> None:
    assert name_error(name) == ""


@pytest.mark.parametrize("name", ["", ".", "..", "...", "a b", "a/b", "ä", "x" * 129, "a\n", "a%2f"])
def test_bad_names(name: str) -> None:
    assert "is no model name" in name_error(name)


def test_scheduling() -> None:
    scheduling = good(
        """
        max_batch_size: 8
        instance_group [
          { name: "a" count: 2 host_policy: "left" rate_limiter {
              priority: 2 resources [ { name: "R1" count: 3 }, { name: "R2" global: true count: 1 } ] } },
          { }
        ]
        dynamic_batching {
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 1500 max_queue_size: 9 }
          priority_queue_policy { key: 3 value { max_queue_size: 1 allow_timeout_override: true } }
        }
        response_cache { enable: true }
        parameters { key: "target_p99_ms" value { string_value: "25.5" } }
        parameters { key: "allowed_batch_sizes" value { string_value: "1, 4,8" } }
        parameters { key: "max_request_batch_size" value { string_value: "64" } }
        parameters { key: "NUM_STREAMS" value { string_value: "2" } }
        model_warmup { name: "w" batch_size: 4 count: 2 inputs { key: "x" value {
          data_type: TYPE_STRING dims: [ 2 ] random_data: true } } }
        """,
        host_policies={"left": (0, 1), "cpu": (5,)},
    )
    assert scheduling.parameters == (("NUM_STREAMS", "2"),)
    default = Queue(max_requests=9, timeout_ms=1.5, on_timeout="delay", request_may_lower=False)
    assert scheduling.scheduling == Scheduling(
        target_p99_ms=25.5,
        allowed_batch_sizes=(1, 4, 8),
        max_request_rows=64,
        queue=default,
        priorities=Priorities(3, 2, {3: Queue(max_requests=1)}),
        instances=(
            Instances(2, "a", (0, 1), (Resource("R1", 3), Resource("R2", 1, is_global=True)), 2),
            Instances(1, cpus=(5,)),
        ),
        response_cache=True,
        warm_up=(WarmUp({"x": WarmUpInput("BYTES", (2,), "random")}, "w", 4, 2),),
    )
    assert scheduling.scheduling.max_queue_requests == 9 + 9 + 1


def test_allowed_batch_sizes_say_the_largest_batch() -> None:
    assert good('parameters { key: "allowed_batch_sizes" value { string_value: "2,6" } }').max_batch_rows == 6


@pytest.mark.parametrize(
    ("policy", "may_lower"),
    [
        ("", True),
        ("default_queue_policy { }", False),
        ("default_queue_policy { allow_timeout_override: true }", True),
    ],
)
def test_the_timeout_of_a_request_counts_where_no_policy_is_written(policy: str, may_lower: bool) -> None:
    settings = good(f"max_batch_size: 1 dynamic_batching {{ {policy} }}")
    assert settings.scheduling.queue.request_may_lower is may_lower


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("dynamic_batching { default_priority_level: 2 }", "default_priority_level is without effect"),
        (
            "dynamic_batching { priority_queue_policy { key: 1 value { } } }",
            "priority_queue_policy is without",
        ),
        ('instance_group { host_policy: "far" }', "no --host-policy=far,... is given"),
    ],
)
def test_what_has_no_effect_says_so(text: str, note: str) -> None:
    settings = good(text)
    assert any(note in one for one in settings.notes)
    assert settings.scheduling.priorities == Priorities()


def test_what_was_read_can_be_written_and_read_again() -> None:
    wanted = Scheduling(
        target_p99_ms=3.25,
        max_queue_delay_us=7,
        preferred_batch_sizes=(2, 4),
        allowed_batch_sizes=(2, 4),
        max_request_rows=16,
        queue=Queue(5, 2.5, "delay", False),
        priorities=Priorities(2, 1, {1: Queue(), 2: Queue(1)}),
        instances=(Instances(3, "g", (0, 2, 3), (Resource("R", 2, is_global=True),), 4),),
        response_cache=True,
    )
    message = protos.message_class("inference.ModelConfig")()
    write_scheduling(wanted, message)
    again = TritonScheduling(message, Positions())
    assert again.wanted == wanted
    assert (list(again.errors(4)), again.notes) == ([], [])
    before = message.SerializeToString(deterministic=True)
    write_scheduling(wanted, message)
    assert message.SerializeToString(deterministic=True) == before
