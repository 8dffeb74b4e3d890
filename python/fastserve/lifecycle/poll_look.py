"""Looks at every model of the repositories: names, sizes and times of its files. Blocking; one thread at a time.

A repository that vanished, cannot be read, or whose file system was taken away under it (what is left is another folder, with
nothing in it) is lost, not empty: its models are as they were. A folder that is still the same and empty was emptied.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fastserve.errors import FastserveError
from fastserve.lifecycle.place import ListedModel, Place
from fastserve.lifecycle.poll_rules import BESIDE, LISTED, Look, Part, PartKey
from fastserve.lifecycle.repository import Repositories
from fastserve.lifecycle.sources import Source
from fastserve.lifecycle.version_files import (
    FileState,
    Finished,
    file_state,
    finished,
    list_files,
    list_model,
)
from fastserve.lifecycle.version_spec import Problem
from fastserve.lifecycle.warm_up_files import FOLDER

# A look gives way to the event loop, which waits for the interpreter lock. A low priority of its thread would do the opposite: on
# a busy machine it would be taken off the CPU while it holds that lock.
MODELS_A_SLICE = 32
PAUSE_S = 0.0005


@dataclass(frozen=True)
class Found:
    """What lies where, beside the look itself."""

    places: Mapping[str, list[Place]]
    problems: Mapping[str, list[Problem]]  # that a source has with a model
    sources: tuple[str, ...]
    lost: Mapping[str, Exception]  # source -> why it cannot be looked at


@dataclass
class _Repository:
    """What it was at the last good look."""

    identity: tuple[int, int] = (0, 0)
    places: Mapping[str, Place] = field(default_factory=dict)


class PollLook:
    def __init__(self, repositories: Repositories, *, folders: bool = True) -> None:
        """`folders`: False, only what lists say is looked at, not what lies in folders."""
        self._repositories = repositories
        self._folders = folders
        self._known: dict[str, _Repository] = {}  # by source
        self._parts: dict[str, Part] = {}  # by path of a version folder, at the last look
        self._next: dict[str, Part] = {}  # at this one

    def look(self, names: Collection[str] | None = None) -> tuple[Look, Found]:
        """`names`: at these models alone."""
        places: dict[str, list[Place]] = {}
        problems: dict[str, list[Problem]] = {}
        lost: dict[str, Exception] = {}
        unknown: set[str] = set()
        for entry in self._repositories.lists:
            entry.look_again()
        settles: dict[str, bool] = {}
        for source in self._repositories.sources():
            settles[source.text] = source.settles
            known = self._known.setdefault(source.text, _Repository())
            try:
                found = self._places(source, known, names)
            except (FastserveError, OSError) as error:
                lost[source.text] = error
                unknown |= known.places.keys()
                continue
            for place in found:
                places.setdefault(place.name, []).append(place)
            for problem in source.problems():
                if names is None or problem.model in names:
                    problems.setdefault(problem.model, []).append(problem)
        models: dict[str, dict[PartKey, Part]] = {}
        for count, (name, mine) in enumerate(places.items(), 1):
            if count % MODELS_A_SLICE == 0:
                time.sleep(PAUSE_S)
            try:
                models[name] = {k: part for place in mine for k, part in self._model(place, settles).items()}
            except OSError:
                unknown.add(name)
        for name, said in problems.items():
            text = _of_text("\n".join(map(str, said)))
            models.setdefault(name, {})[PartKey("", LISTED)] = Part((text,))
        self._parts, self._next = self._next, {}
        return Look(models, frozenset(unknown)), Found(places, problems, tuple(settles), lost)

    def _places(self, source: Source, known: _Repository, names: Collection[str] | None) -> list[Place]:
        found = source.places(names, known=known.places)
        folder = source.folder()
        if folder is not None:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            if known.places and not found and identity != known.identity:
                raise FileNotFoundError(
                    f"model repository '{source.text}' is another folder than before, with nothing in it"
                )
            known.identity = identity
        known.places = {place.name: place for place in found}
        return found

    def _model(self, place: Place, settles: Mapping[str, bool]) -> dict[PartKey, Part]:
        path = str(place.path)
        parts = {}
        if place.listed is not None and place.listed.name:
            parts[PartKey(path, LISTED)] = Part((_of_listed(place.listed),))
        if not self._folders:
            return parts
        if place.listed is not None and place.path.is_file():
            parts[PartKey(path, "1")] = Part(tuple(list_model(place.path)))
            return parts
        # What a list says of a whole repository is like a file beside the versions.
        beside = [] if place.listed is None or place.listed.name else [_of_listed(place.listed)]
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    beside.append(file_state(entry.path, entry.name))
                elif entry.name.isascii() and entry.name.isdigit():
                    parts[PartKey(path, entry.name)] = self._version(entry.path, settles[place.source])
                elif entry.name == FOLDER:
                    beside += [f._replace(name=f"{FOLDER}/{f.name}") for f in list_files(entry.path)]
        always: Finished = "does not say" if settles[place.source] else "says so"
        parts[PartKey(path, BESIDE)] = Part(tuple(sorted(beside)), always)
        return parts

    def _version(self, path: str, settles: bool) -> Part:
        files = tuple(list_files(path))
        known = self._parts.get(path)
        if known is not None and known.files == files:
            self._next[path] = known
            return known
        said, why = finished(path, files)
        part = Part(files, said if settles else "says so", why)
        self._next[path] = part
        return part


def _of_listed(model: ListedModel) -> FileState:
    return _of_text(repr((model.base_path, model.version_policy, model.labels, model.pinned,
                          model.resource_preserving, model.max_batch_rows, model.parameters)))  # fmt: skip


def _of_text(text: str) -> FileState:
    return FileState(text, 0, 0, 0)
