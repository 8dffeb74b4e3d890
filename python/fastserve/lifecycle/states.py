"""What users see of every version: what is wanted, what the reconciler knows, and what the engine says, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastserve import _core
from fastserve.lifecycle.policy import Wish
from fastserve.lifecycle.version_record import ModelState, VersionRecord

WAITS = "waits for its turn to load"

_Key = tuple[str, int | None]


def model_states(
    wishes: Mapping[str, Wish],
    asleep: Mapping[str, str],
    records: Mapping[VersionRecord, str],
    failures: Iterable[ModelState],
    statuses: Iterable[_core.VersionStatus],
    now: float,
) -> list[ModelState]:
    """Every version that is wanted or in the engine, and every failure before that; by model, then version. `asleep`: model ->
    why. `records`: with why their last load failed ("": it did not). `now`: seconds of the loop's clock."""
    states: dict[_Key, ModelState] = {}
    for model, wish in wishes.items():
        state, reason = ("UNLOADED", asleep.get(model, "")) if wish.asleep else ("NEW", WAITS)
        states |= {(model, version): ModelState(model, version, state, reason) for version in wish.versions}
    known = {(record.model, record.version): record for record in records}
    for key, record in known.items():
        if records[record]:
            states[key] = ModelState(*key, "FAILED", records[record], retry_in_s=_retry_in_s(record, now))
    for failure in failures:
        states[failure.model, failure.version] = failure
    for status in statuses:
        ours = known.get((status.model, status.version))
        error = records[ours] if ours is not None else ""
        states[status.model, status.version] = _from_engine(status, ours, error, now)
    for key, busy in known.items():
        doing = _doing(busy)
        # The engine knows more about a version that it is loading; between two states it knows less.
        if doing is not None and (key not in states or states[key].state in {"NEW", "FAILED", "UNLOADED"}):
            states[key] = doing
    return [states[key] for key in sorted(states, key=lambda k: (k[0], k[1] or 0))]


def _from_engine(
    status: _core.VersionStatus, record: VersionRecord | None, error: str, now: float
) -> ModelState:
    reason = status.reason
    retry_in_s = None
    if record is not None and status.state == "FAILED":
        reason = error or reason
        retry_in_s = _retry_in_s(record, now)
    elif record is not None and status.state == "READY" and (failed := error or record.kept):
        reason = f"serves on as it was; the new one failed: {failed}"
        retry_in_s = _retry_in_s(record, now)
    return ModelState(status.model, status.version, status.state, reason, status.progress, retry_in_s)


def _doing(record: VersionRecord) -> ModelState | None:
    if record.loads is not None:
        return ModelState(record.model, record.version, record.loads.state, record.what, record.progress)
    if record.unloading:
        return ModelState(record.model, record.version, "DRAINING")
    return None


def _retry_in_s(record: VersionRecord, now: float) -> float | None:
    return None if record.retry_at is None else max(0.0, record.retry_at - now)
