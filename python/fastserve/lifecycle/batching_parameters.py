"""TensorFlow Serving's batching parameters: `batching_params.pbtxt` in a version's folder, and --batching-parameters-file.

    max_batch_size                 rows of a batch; with enable_large_batch_splitting, of a request
    max_execution_batch_size       rows of a batch, with enable_large_batch_splitting
    batch_timeout_micros           max_queue_delay_us
    max_enqueued_batches           queue limit: so many batches of one-row requests (max_enqueued_batches x rows of a batch)
    num_batch_threads              instances
    allowed_batch_sizes            the same; the last one equals the rows of a batch
    enable_large_batch_splitting   max_request_rows
    pad_variable_length_inputs     refused when true: not supported yet
    thread_pool_name               without effect: models share the server's threads anyway

They fill what the model's configuration leaves open. In a version's folder, a value that contradicts it is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastserve import protos
from fastserve.lifecycle import pbtxt
from fastserve.lifecycle.pbtxt import Positions, TextError
from fastserve.scheduling import (
    MAX_DELAY_US,
    MAX_INSTANCES,
    MAX_REQUESTS,
    MAX_ROWS,
    Instances,
    Scheduling,
)

FILE_NAME = "batching_params.pbtxt"
MAX_FILE_BYTES = 1 << 20

# Field -> the largest value; the smallest is 1, of the delay 0.
_MOST = {
    "max_batch_size": MAX_ROWS,
    "batch_timeout_micros": MAX_DELAY_US,
    "max_enqueued_batches": MAX_REQUESTS,
    "num_batch_threads": MAX_INSTANCES,
    "max_execution_batch_size": MAX_ROWS,
}


@dataclass(frozen=True)
class BatchingParameters:
    """In our words; None: not said."""

    max_batch_rows: int | None = None
    max_queue_delay_us: int | None = None
    max_queue_requests: int | None = None
    instances: int | None = None
    allowed_batch_sizes: tuple[int, ...] | None = None
    max_request_rows: int | None = None
    notes: tuple[str, ...] = ()


def parse_batching_parameters(text: str) -> tuple[BatchingParameters, list[TextError]]:
    """The parameters hold when there are no errors."""
    message = protos.message_class("fastserve.BatchingParameters")()
    positions, errors = pbtxt.parse(text, message)
    if not errors:
        errors = list(_errors(message, positions))
    if errors:
        return BatchingParameters(), sorted(errors, key=lambda e: e.line)
    return _parameters(message), []


def read_batching_parameters(path: Path) -> BatchingParameters:
    """ValueError has every problem, each with file and line."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path}: has {len(content)} bytes, at most {MAX_FILE_BYTES} are read")
    parameters, errors = parse_batching_parameters(text)
    if errors:
        raise ValueError("; ".join(f"{path}:{error.line}: {error.message}" for error in errors))
    return parameters


def _errors(message: Any, positions: Positions) -> Iterator[TextError]:
    for name, most in _MOST.items():
        least = 0 if name == "batch_timeout_micros" else 1
        if message.HasField(name) and not least <= getattr(message, name).value <= most:
            got = getattr(message, name).value
            yield TextError(positions.line(name), f"{name}: got {got}, want {least} to {most}")
    if message.pad_variable_length_inputs:
        line = positions.line("pad_variable_length_inputs")
        yield TextError(line, "pad_variable_length_inputs is not supported yet")
    splits = message.enable_large_batch_splitting.value
    if message.HasField("max_execution_batch_size"):
        line, got = positions.line("max_execution_batch_size"), message.max_execution_batch_size.value
        if not splits:
            yield TextError(
                line, "max_execution_batch_size needs enable_large_batch_splitting { value: true }"
            )
        if message.HasField("max_batch_size") and got > message.max_batch_size.value:
            most = message.max_batch_size.value
            yield TextError(line, f"max_execution_batch_size: {got} is above max_batch_size {most}")
    if message.HasField("max_enqueued_batches") and _rows(message) is None:
        yield TextError(positions.line("max_enqueued_batches"), "max_enqueued_batches needs max_batch_size")
    yield from _allowed_errors(message, positions)


def _allowed_errors(message: Any, positions: Positions) -> Iterator[TextError]:
    allowed, rows = list(message.allowed_batch_sizes), _rows(message)
    for index, size in enumerate(allowed):
        line = positions.line("allowed_batch_sizes", index)
        if not 1 <= size <= MAX_ROWS:
            yield TextError(line, f"allowed_batch_sizes: got {size}, want 1 to {MAX_ROWS}")
        elif index and size <= allowed[index - 1]:
            message_text = (
                f"allowed_batch_sizes: {size} comes after {allowed[index - 1]}, want them ascending"
            )
            yield TextError(line, message_text)
    if allowed and rows is not None and allowed[-1] != rows:
        name = (
            "max_execution_batch_size" if message.HasField("max_execution_batch_size") else "max_batch_size"
        )
        line = positions.line("allowed_batch_sizes", len(allowed) - 1)
        yield TextError(line, f"allowed_batch_sizes: the last is {allowed[-1]}, want {name}, which is {rows}")


def _rows(message: Any) -> int | None:
    """Of a batch."""
    for name in ("max_execution_batch_size", "max_batch_size"):
        if message.HasField(name):
            return int(getattr(message, name).value)
    return message.allowed_batch_sizes[-1] if message.allowed_batch_sizes else None


def _parameters(message: Any) -> BatchingParameters:
    def value(name: str) -> int | None:
        return int(getattr(message, name).value) if message.HasField(name) else None

    rows, batches = _rows(message), value("max_enqueued_batches")
    notes = []
    if message.HasField("thread_pool_name"):
        notes.append("thread_pool_name is without effect: models share the server's threads")
    splits = message.enable_large_batch_splitting.value and message.HasField("max_batch_size")
    return BatchingParameters(
        max_batch_rows=rows,
        max_queue_delay_us=value("batch_timeout_micros"),
        max_queue_requests=None if batches is None or rows is None else min(batches * rows, MAX_REQUESTS),
        instances=value("num_batch_threads"),
        allowed_batch_sizes=tuple(message.allowed_batch_sizes) or None,
        max_request_rows=value("max_batch_size") if splits else None,
        notes=tuple(notes),
    )


# --- together with the model's own configuration


@dataclass(frozen=True)
class Applied:
    max_batch_rows: int
    scheduling: Scheduling
    differences: tuple[str, ...] = ()  # what the model's configuration says otherwise, and wins


def apply(given: BatchingParameters, max_batch_rows: int, own: Scheduling) -> Applied:
    """Fills what `own` leaves open."""
    differences: list[str] = []

    def differs(name: str, got: object, configured: object) -> None:
        differences.append(f"{name}: got {got}, but the model's configuration says {configured}")

    rows = max_batch_rows
    if given.max_batch_rows is not None:
        if rows == -1:
            rows = given.max_batch_rows
        elif rows != given.max_batch_rows:
            differs("rows of a batch", given.max_batch_rows, rows)
    filled: dict[str, Any] = {}
    for name in ("max_queue_delay_us", "allowed_batch_sizes", "max_request_rows"):
        got, configured = getattr(given, name), getattr(own, name)
        if got and not configured:
            filled[name] = got
        elif got and got != configured:
            differs(name, got, configured)
    if given.instances is not None:
        configured = sum(group.count for group in own.instances)
        if not configured:
            filled["instances"] = (Instances(count=given.instances),)
        elif configured != given.instances:
            differs("instances", given.instances, configured)
    if given.max_queue_requests is not None:
        if not own.max_queue_requests and not own.priorities.levels:
            filled["queue"] = replace(own.queue, max_requests=given.max_queue_requests)
        elif own.max_queue_requests != given.max_queue_requests:
            differs(
                "requests that may wait", given.max_queue_requests, own.max_queue_requests or "nothing of it"
            )
    if rows != given.max_batch_rows:  # sizes for batches that this model does not have
        filled.pop("allowed_batch_sizes", None)
        filled.pop("max_request_rows", None)
    return Applied(rows, replace(own, **filled), tuple(differences))
