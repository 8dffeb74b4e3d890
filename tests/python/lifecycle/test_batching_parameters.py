"""TensorFlow Serving's batching parameters: each field used, noted or refused, in which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve import protos
from fastserve.lifecycle.batching_parameters import (
    BatchingParameters,
    apply,
    parse_batching_parameters,
    read_batching_parameters,
)
from fastserve.scheduling import Instances, Priorities, Queue, Scheduling


def good(text: str) -> BatchingParameters:
    parameters, errors = parse_batching_parameters(text)
    assert errors == []
    return parameters


def test_every_field() -> None:
    parameters = good(
        """
        max_batch_size { value: 128 }
        batch_timeout_micros { value: 0 }
        max_enqueued_batches { value: 10 }
        num_batch_threads { value: 4 }
        thread_pool_name { value: "pool" }
        allowed_batch_sizes: 8
        allowed_batch_sizes: 32
        pad_variable_length_inputs: false
        enable_large_batch_splitting { value: true }
        max_execution_batch_size { value: 32 }
        """
    )
    assert parameters == BatchingParameters(
        max_batch_rows=32,
        max_queue_delay_us=0,
        max_queue_requests=320,
        instances=4,
        allowed_batch_sizes=(8, 32),
        max_request_rows=128,
        notes=("thread_pool_name is without effect: models share the server's threads",),
    )


def test_the_fields_of_the_proto_are_those_of_tensorflow_serving() -> None:
    fields = protos.message_class("fastserve.BatchingParameters").DESCRIPTOR.fields
    assert {field.name for field in fields} == {
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "thread_pool_name",
        "allowed_batch_sizes",
        "pad_variable_length_inputs",
        "enable_large_batch_splitting",
        "max_execution_batch_size",
    }


@pytest.mark.parametrize(
    ("text", "line", "fragment"),
    [
        ("max_batch_size: 4", 1, ""),
        ("\nmax_batchsize { value: 4 }", 2, "unknown field 'max_batchsize' (did you mean max_batch_size?)"),
        ("max_batch_size { value: 0 }", 1, "max_batch_size: got 0, want 1 to"),
        ("batch_timeout_micros {\n value: -1 }", 1, "batch_timeout_micros: got -1, want 0 to 3600000000"),
        ("num_batch_threads { value: 1025 }", 1, "num_batch_threads: got 1025, want 1 to 1024"),
        ("max_enqueued_batches { value: 4 }", 1, "max_enqueued_batches needs max_batch_size"),
        ("\npad_variable_length_inputs: true", 2, "pad_variable_length_inputs is not supported yet"),
        ("allowed_batch_sizes: [ 4,\n 2 ]", 2, "2 comes after 4, want them ascending"),
        (
            "max_batch_size { value: 8 }\nallowed_batch_sizes: [ 4 ]",
            2,
            "the last is 4, want max_batch_size, which is 8",
        ),
        (
            "max_execution_batch_size { value: 8 }",
            1,
            "max_execution_batch_size needs enable_large_batch_splitting",
        ),
        (
            "max_batch_size { value: 8 }\nenable_large_batch_splitting { value: true }\n"
            "max_execution_batch_size { value: 9 }",
            3,
            "max_execution_batch_size: 9 is above max_batch_size 8",
        ),
        (
            "max_batch_size { value: 8 }\nenable_large_batch_splitting { value: true }\n"
            "max_execution_batch_size { value: 4 } allowed_batch_sizes: 8",
            3,
            "the last is 8, want max_execution_batch_size, which is 4",
        ),
    ],
)
def test_refused_in_a_line(text: str, line: int, fragment: str) -> None:
    _, errors = parse_batching_parameters(text)
    assert (errors[0].line, len(errors)) == (line, 1)
    assert fragment in errors[0].message


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "b.pbtxt"
    file.write_text("num_batch_threads { value: 2 }")
    assert read_batching_parameters(file).instances == 2
    file.write_text("\nfoo: 1\nbar: 2")
    with pytest.raises(ValueError, match=r"b\.pbtxt:2: .*'foo'; .*b\.pbtxt:3: .*'bar'"):
        read_batching_parameters(file)
    with pytest.raises(ValueError, match="No such file"):
        read_batching_parameters(tmp_path / "none")


def test_it_fills_what_is_open() -> None:
    given = BatchingParameters(16, 50, 160, 2, (4, 16), 64)
    applied = apply(given, -1, Scheduling())
    assert applied.max_batch_rows == 16
    assert applied.scheduling == Scheduling(
        max_queue_delay_us=50,
        queue=Queue(max_requests=160),
        instances=(Instances(2),),
        allowed_batch_sizes=(4, 16),
        max_request_rows=64,
    )
    assert applied.differences == ()
    own = Scheduling(queue=Queue(timeout_ms=5, on_timeout="delay"))
    assert apply(given, 16, own).scheduling.queue == Queue(160, 5, "delay")


def test_what_the_model_says_wins() -> None:
    own = Scheduling(
        max_queue_delay_us=7,
        queue=Queue(max_requests=9),
        instances=(Instances(3), Instances(1)),
        allowed_batch_sizes=(8,),
    )
    applied = apply(BatchingParameters(16, 50, 160, 2, (4, 16), 64), 8, own)
    assert (applied.max_batch_rows, applied.scheduling) == (8, own)
    assert [text.split(":")[0] for text in applied.differences] == [
        "rows of a batch",
        "max_queue_delay_us",
        "allowed_batch_sizes",
        "instances",
        "requests that may wait",
    ]
    same = BatchingParameters(8, 7, 9, 4, (8,))
    assert apply(same, 8, own).differences == ()


def test_priority_levels_have_limits_of_their_own() -> None:
    own = Scheduling(priorities=Priorities(2, 1))
    applied = apply(BatchingParameters(max_queue_requests=5), -1, own)
    assert applied.scheduling == own
    assert len(applied.differences) == 1
