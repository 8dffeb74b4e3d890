"""The pure rules of loads and unloads: what a model needs, and which of it starts now. Reads no clock, touches no engine.

Availability first, unless a model asks for the other way: an old version goes when a wanted one of its model is ready, so that
there is no gap (and for a while both are in memory). Resources first: what is not wanted any more goes before anything is
loaded, so that the memory never holds both (and for a while nothing serves). A version that failed is left alone until its spec
changes, or its time to be tried again has come.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fastserve.lifecycle.transitions import State
from fastserve.lifecycle.version_spec import VersionSpec

Key = tuple[str, int]  # model, version
Wanted = Mapping[str, Mapping[int, VersionSpec]]

_MAY_LOAD: frozenset[State] = frozenset({"NEW", "UNLOADED", "READY", "FAILED"})
_IN_MEMORY: frozenset[State] = frozenset({"LOADING", "WARMING", "READY", "DRAINING"})


class Manner(NamedTuple):
    """How the versions of a model come and go. None: as the server says."""

    resource_preserving: bool | None = None
    load_timeout_s: float | None = None  # 0: none
    priority: int = 0  # models of a higher one are loaded first


@dataclass(frozen=True)
class Wish:
    """What is wanted of one model."""

    versions: Mapping[int, VersionSpec]
    resource_preserving: bool = False
    priority: int = 0
    asleep: bool = False  # stays wanted, and is not to be in memory


NOTHING = Wish({})


class Actual(NamedTuple):
    """A version as it is."""

    state: State
    tried: VersionSpec | None = (
        None  # what the last attempt to load was of; None: not ours, or to be tried again
    )
    retry_at: float | None = (
        None  # when that failed and may work later: from when on, in seconds of the loop's clock
    )
    stuck: bool = False  # DRAINING, and its unload failed: nobody waits for it


class Action(NamedTuple):
    kind: Literal["load", "unload"]
    model: str
    version: int


class Room(NamedTuple):
    """How many more loads and unloads may start now."""

    loads: int
    unloads: int


UNBOUNDED = Room(1 << 30, 1 << 30)


def plan(
    wishes: Mapping[str, Wish], actual: Mapping[Key, Actual], now: float = 0.0, room: Room = UNBOUNDED
) -> list[Action]:
    """What can be started now, in the order in which it should be. Empty and nothing in flight: settled."""
    by_model: dict[str, dict[int, Actual]] = {model: {} for model in wishes}
    for (model, version), entry in actual.items():
        by_model.setdefault(model, {})[version] = entry
    due = {m: plan_model(m, wishes.get(m, NOTHING), entries, now) for m, entries in by_model.items()}
    serving = {model for (model, _), entry in actual.items() if entry.state == "READY"}
    return choose(due, wishes, serving, room)


def plan_model(model: str, wish: Wish, actual: Mapping[int, Actual], now: float) -> list[Action]:
    """What one model needs now, most urgent first, as if there were room for all of it."""
    if wish.asleep:
        return _unloads(model, [v for v in sorted(actual) if _goes_to_sleep(v, wish, actual[v])])
    newest_first = sorted(wish.versions, reverse=True)
    loads = [version for version in newest_first if _is_due(wish.versions[version], actual.get(version), now)]
    if wish.resource_preserving:
        return _resources_first(model, wish, actual, loads)
    return _loads(model, loads) + _unloads(model, _not_needed(wish, actual))


def choose(
    due: Mapping[str, Iterable[Action]], wishes: Mapping[str, Wish], serving: Collection[str], room: Room
) -> list[Action]:
    """Of what is due, what starts now. Unloads make room and come first. Loads: by the model's priority; then models that do
    not serve yet; then every model's newest version before anybody's second. `serving`: models with a READY version."""
    unloads, loads = [], []
    for model, actions in due.items():
        wish = wishes.get(model, NOTHING)
        for place, action in enumerate(actions):
            if action.kind == "unload":
                unloads.append(action)
            else:
                loads.append(((-wish.priority, model in serving, place, model), action))
    first = heapq.nsmallest(max(0, room.loads), loads) if room.loads < len(loads) else sorted(loads)
    return unloads[: max(0, room.unloads)] + [action for _, action in first]


def _is_due(spec: VersionSpec, entry: Actual | None, now: float) -> bool:
    if entry is None:
        return True
    if entry.state not in _MAY_LOAD:
        return False
    if entry.tried != spec or entry.state == "UNLOADED":
        return True
    return entry.retry_at is not None and entry.retry_at <= now


def _not_needed(wish: Wish, actual: Mapping[int, Actual]) -> list[int]:
    """What may go without a gap."""
    unwanted = sorted(version for version in actual if version not in wish.versions)
    ready = [version for version in unwanted if actual[version].state == "READY"]
    if wish.versions and not any(actual[v].state == "READY" for v in actual if v in wish.versions):
        ready = ready[:-1]  # the newest of the old ones serves until a wanted version does
    return [version for version in unwanted if actual[version].state == "FAILED"] + ready


def _resources_first(model: str, wish: Wish, actual: Mapping[int, Actual], loads: list[int]) -> list[Action]:
    """Unloads until nothing is in memory that has to go; then loads."""
    goes = {v for v in actual if v not in wish.versions or (v in loads and actual[v].state == "READY")}
    draining = {v for v in actual if actual[v].state == "DRAINING"}
    in_the_way = [v for v in goes | draining if actual[v].state in _IN_MEMORY and not actual[v].stuck]
    unloads = _unloads(model, [v for v in sorted(goes) if actual[v].state in {"READY", "FAILED"}])
    return unloads if in_the_way else _loads(model, loads) + unloads


def _goes_to_sleep(version: int, wish: Wish, entry: Actual) -> bool:
    return entry.state == "READY" or (entry.state == "FAILED" and version not in wish.versions)


def _loads(model: str, versions: Iterable[int]) -> list[Action]:
    return [Action("load", model, version) for version in versions]


def _unloads(model: str, versions: Iterable[int]) -> list[Action]:
    return [Action("unload", model, version) for version in versions]
