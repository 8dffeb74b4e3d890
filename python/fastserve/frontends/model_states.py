"""What `fastserve models` shows: every version with what it costs and does. Ours alone; the index is Triton's part of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastserve import _core
from fastserve.errors import FastserveError, Unavailable
from fastserve.frontends.served import Served
from fastserve.lifecycle import ModelState

Json = dict[str, Any]


async def reload(served: Served) -> bool:
    """Whether anything has changed. Unavailable: a repository cannot be read; everything is as it was."""
    try:
        return await served.control.reload()
    except FastserveError as error:
        raise Unavailable(f"nothing was reloaded: {error.message}") from None


async def model_states(served: Served) -> list[Json]:
    """By model and version, with the names alone of models that were never loaded."""
    statuses = {(s.model, s.version): s for s in served.core.status()}
    labels = _labels(served)
    states = await served.control.states()
    rows = [_row(served.core, state, statuses, labels) for state in states]
    held = _gpu_bytes()
    for state, row in zip(states, rows, strict=True):
        if (owner := f"model '{state.model}' version {state.version}") in held:
            row["gpu_memory_bytes"] = held[owner]
    return rows


def _gpu_bytes() -> dict[str, int]:
    """What versions hold of all GPUs together, by the owner's name in the ledgers."""
    held: Counter[str] = Counter()
    for ledger in _core.gpu_memory():
        for one in ledger["holdings"]:
            held[one["owner"]] += one["weights"] + one["activations"] + one["buffers"] + one["graphs"]
    return held


def _row(
    core: _core.Engine,
    state: ModelState,
    statuses: dict[tuple[str, int], _core.VersionStatus],
    labels: dict[tuple[str, int], dict[str, int]],
) -> Json:
    row: Json = {"name": state.model, "state": state.state}
    if state.version is None:
        return row | ({"reason": state.reason} if state.reason else {})
    row |= {"version": str(state.version), "reason": state.reason, "progress": round(state.progress, 3)}
    if state.retry_in_s is not None:
        row["retry_in_s"] = round(state.retry_in_s, 1)
    key = (state.model, state.version)
    row["labels"] = labels.get(key, {})
    status = statuses.get(key)
    if status is not None:
        row |= {"instances": status.instance_count, "memory_bytes": getattr(status, "memory_bytes", 0)}
        row |= _counts(core, status)
    return row


def _counts(core: _core.Engine, status: _core.VersionStatus) -> Json:
    try:
        counts = core.statistics(status.model, status.version)
    except FastserveError:  # gone since
        return {}
    failures = counts.fail.count + counts.rejected.count + counts.cancel.count
    return {"requests": counts.success.count, "failures": failures}


def _labels(served: Served) -> dict[tuple[str, int], dict[str, int]]:
    found: dict[tuple[str, int], dict[str, int]] = {}
    for label in served.core.labels():
        found.setdefault((label.model, label.version), {})[label.label] = label.weight
    return found
