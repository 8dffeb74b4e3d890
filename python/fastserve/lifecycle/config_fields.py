"""Which fields of Triton's config.pbtxt are served, shown, or refused: the one table that decides (and documents) it.

used     has its effect
shown    accepted, returned by ModelConfig, without effect: a hint that changes neither results nor anything promised
refused  the model does not load and the message names file and line: results or a promise would differ without it

A row stands for everything below it, unless a row below says otherwise. `refused` applies to fields that are set; in
proto3 a scalar that is written with its default (`enable: false`) counts as not set.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple

from fastserve.lifecycle.pbtxt import Positions, TextError


class Verdict(Enum):
    USED = "used"
    SHOWN = "shown"
    REFUSED = "refused"


class Row(NamedTuple):
    verdict: Verdict
    note: str = ""


_USED = Row(Verdict.USED)
_NOT_YET = Row(Verdict.REFUSED, "is not supported yet")


def _shown(note: str) -> Row:
    return Row(Verdict.SHOWN, note)


def _refused(note: str) -> Row:
    return Row(Verdict.REFUSED, note)


FIELDS: dict[str, Row] = {
    "name": _USED,
    "platform": _USED,
    "backend": _USED,
    "version_policy": _USED,
    "max_batch_size": _USED,
    "input": _USED,
    "input.format": _shown("documents the layout; the bytes are not touched"),
    "input.reshape": _NOT_YET,
    "input.is_shape_tensor": _shown("the plan itself says which tensors are shape tensors"),
    "input.allow_ragged_batch": _NOT_YET,
    "output": _USED,
    "output.reshape": _NOT_YET,
    "output.is_shape_tensor": _shown("the plan itself says which tensors are shape tensors"),
    "batch_input": _NOT_YET,
    "batch_output": _NOT_YET,
    "optimization": _shown("hints about speed"),
    "optimization.execution_accelerators": _USED,
    "optimization.cuda": _USED,
    "optimization.cuda.graph_spec": _shown("every prepared batch size has a graph"),
    "optimization.cuda.output_copy_stream": _shown("lanes copy while others compute"),
    "optimization.priority": _USED,
    "dynamic_batching": _USED,
    "sequence_batching": _NOT_YET,
    "ensemble_scheduling": _NOT_YET,
    "instance_group": _USED,
    "instance_group.secondary_devices": _refused("is for DLA, which this server does not run on"),
    "instance_group.passive": _NOT_YET,
    "default_model_filename": _USED,
    "cc_model_filenames": _refused("is not supported yet: every GPU gets the same file"),
    "metric_tags": _refused("is not supported yet: metrics would lack the labels"),
    "parameters": _USED,
    "model_warmup": _USED,
    "model_operations": _refused("is for TensorFlow's custom operations, which OpenVINO cannot load"),
    "model_transaction_policy.decoupled": _NOT_YET,
    "model_transaction_policy": _USED,
    "model_repository_agents": _NOT_YET,
    "response_cache": _USED,
}


def verdict(path: str) -> Row | None:
    """The row for a field ("input.dims"): its own, or the nearest one above. None: the table does not know it."""
    while path:
        if path in FIELDS:
            return FIELDS[path]
        path = path.rpartition(".")[0]
    return None


def refused_fields(message: Any, positions: Positions) -> Iterator[TextError]:
    """One error for each field that is set and refused."""
    yield from _walk(message, (), positions)


def _walk(message: Any, at: tuple[str | int, ...], positions: Positions) -> Iterator[TextError]:
    for field, value in message.ListFields():
        path = (*at, field.name)
        dotted = ".".join(part for part in path if isinstance(part, str))
        row = verdict(dotted) or _NOT_YET  # a field that a later schema adds
        if row.verdict is Verdict.REFUSED:
            yield TextError(positions.line(*path), f"{dotted} {row.note}")
        elif field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        else:
            for index, item in enumerate(value if field.is_repeated else [value]):
                yield from _walk(item, (*path, index), positions)
