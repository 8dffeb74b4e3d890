"""The pure rules of polling: looks at the repositories, one after another -> which models are to be read again, which are gone.

A look says of every model what its parts are: each version folder, what lies beside them, what a list says of it. A part that
has changed (or is not there any more) counts when it looked the same for `settle_s`; one that says itself that it is finished
(version_files.py) counts at once when it is new. Until then it is `held`: the versions around it are read without it. Reads no
clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fastserve.lifecycle.version_files import FileState, Finished

BESIDE = ""  # the part that is what lies beside the version folders
LISTED = "listed"  # the part that is what a list says; there is no waiting for it


class PartKey(NamedTuple):
    path: str  # of the model
    part: str  # name of a version folder, BESIDE or LISTED


class Part(NamedTuple):
    """As it looks. Two that are equal are the same."""

    files: tuple[FileState, ...]
    finished: Finished = "does not say"
    why: str = ""  # it is not finished

    @property
    def changed_ns(self) -> int:
        """Of the files, by the clock of their file system."""
        return max((file.ctime_ns for file in self.files), default=0)


Parts = Mapping[PartKey, Part]


@dataclass(frozen=True)
class Look:
    models: Mapping[str, Parts]
    unknown: frozenset[str] = frozenset()  # models that cannot be looked at now: as they were
    complete: bool = True  # else more models may be there: none is gone


@dataclass(frozen=True)
class Step:
    """What follows from a look. `read`: the models to read again, with the numbers of versions that are held: True, it serves
    as it was before; False, it was not there yet. `changing`: what is being waited for."""

    read: Mapping[str, Mapping[int, bool]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    changing: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class _Model:
    taken: dict[PartKey, Part] = field(default_factory=dict)  # as it was read last
    waiting: dict[PartKey, tuple[Part | None, float]] = field(
        default_factory=dict
    )  # how it looks, since when


class PollRules:
    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}

    def step(self, look: Look, now: float, settle_s: float, wall_ns: int | None = None) -> Step:
        """`now`: seconds of any clock. `wall_ns`: at the first look, where there is nothing to compare with: what was last
        changed `settle_s` before counts as well."""
        read: dict[str, dict[int, bool]] = {}
        gone: set[str] = set()
        changing: dict[tuple[str, str], str] = {}
        before = None if wall_ns is None else wall_ns - round(settle_s * 1e9)
        for name in self._models.keys() | look.models.keys():
            seen = look.models.get(name, {})
            if name in look.unknown or (not seen and not look.complete):
                continue
            model = self._models.setdefault(name, _Model())
            if seen == model.taken:
                model.waiting.clear()
                continue
            fresh, held = self._compare(model, seen, now, settle_s, before)
            changing |= {(name, key.part): why for key, why in held.items()}
            if not fresh or any(key.part == BESIDE for key in held):
                continue
            model.taken = {key: part for key, part in model.taken.items() if key not in fresh} | {
                key: seen[key] for key in fresh if key in seen
            }
            for key in fresh:
                model.waiting.pop(key, None)
            if model.taken:
                read[name] = {int(k.part): k in model.taken for k in held if k.part.isdigit()}
            else:
                del self._models[name]
                gone.add(name)
        return Step(read, frozenset(gone), changing)

    def forget(self, name: str) -> None:
        """What could not be read is read again at the next look."""
        self._models.pop(name, None)

    def _compare(
        self, model: _Model, seen: Parts, now: float, settle_s: float, before: int | None
    ) -> tuple[set[PartKey], dict[PartKey, str]]:
        """What has changed and counts, and what has and does not, with the reason."""
        fresh: set[PartKey] = set()
        held: dict[PartKey, str] = {}
        unlisted = {k.path for k in model.taken if k.part == LISTED and k not in seen}
        for key in seen.keys() | model.taken.keys():
            part = seen.get(key)
            if part == model.taken.get(key):
                model.waiting.pop(key, None)
                continue
            since = now
            if (waiting := model.waiting.get(key)) is not None and waiting[0] == part:
                since = waiting[1]
            model.waiting[key] = (part, since)
            settled = now - since >= settle_s or (
                part is not None and before is not None and part.changed_ns <= before
            )
            if part is not None and part.finished == "no":
                held[key] = part.why
            elif (
                settled
                or key.part == LISTED
                or (part is None and key.path in unlisted)
                or (part is not None and part.finished == "says so" and key not in model.taken)
            ):
                fresh.add(key)
            else:
                held[key] = "is not there any more" if part is None else "has changed just now"
        return fresh, held


def waiting_versions(changing: Mapping[tuple[str, str], str]) -> dict[tuple[str, int], str]:
    """Of Step.changing the versions alone, with why they wait in words that follow "it"."""
    return {(model, int(part)): worded(why) for (model, part), why in changing.items() if part.isdigit()}


def worded(why: str) -> str:
    return why if why.startswith(("has ", "is ")) else f"is not complete: {why}"
