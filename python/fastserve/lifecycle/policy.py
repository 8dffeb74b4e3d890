"""The pure rule that orders loads and unloads. Reads no clock, touches no engine.

Availability first: an old version goes when a wanted one of its model is ready, so that there is no gap (and for a
while both are in memory). A version that failed is left alone until its spec changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from fastserve.lifecycle.version_spec import VersionSpec

Key = tuple[str, int]  # model, version
Wanted = Mapping[str, Mapping[int, VersionSpec]]


class Actual(NamedTuple):
    """A version as it is: the engine's state, and the spec of the last attempt to load it (None: not ours)."""

    state: str
    tried: VersionSpec | None = None


class Action(NamedTuple):
    kind: Literal["load", "unload"]
    model: str
    version: int


def plan(wanted: Wanted, actual: Mapping[Key, Actual]) -> list[Action]:
    """What can be started now, in the order in which it should be. Empty and nothing in flight: settled."""
    actions: list[Action] = []
    for model in sorted(set(wanted) | {key[0] for key in actual}):
        now = {version: entry for (name, version), entry in actual.items() if name == model}
        actions += _loads(model, wanted.get(model, {}), now)
        actions += _unloads(model, wanted.get(model, {}), now)
    return actions


def _loads(model: str, wanted: Mapping[int, VersionSpec], now: Mapping[int, Actual]) -> list[Action]:
    actions = []
    for version in sorted(wanted, reverse=True):  # the one that requests without a version get comes first
        entry = now.get(version, Actual("NEW"))
        may_start = entry.state in {"NEW", "UNLOADED", "READY", "FAILED"}
        if (may_start and entry.tried != wanted[version]) or entry.state == "UNLOADED":
            actions.append(Action("load", model, version))
    return actions


def _unloads(model: str, wanted: Mapping[int, VersionSpec], now: Mapping[int, Actual]) -> list[Action]:
    unwanted = sorted(version for version in now if version not in wanted)
    ready = [version for version in unwanted if now[version].state == "READY"]
    if wanted and not any(now[version].state == "READY" for version in wanted if version in now):
        ready = ready[:-1]  # the newest of the old ones serves until a wanted version does
    failed = [version for version in unwanted if now[version].state == "FAILED"]
    return [Action("unload", model, version) for version in (*failed, *ready)]
