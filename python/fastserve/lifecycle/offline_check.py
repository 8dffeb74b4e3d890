"""Everything that is wrong with repositories, without a server: each model, each version whether it is served or not, each file.

Finds what a scan finds, and beyond: versions that the policy does not serve, every place of a model that is in two
repositories, checksums of every manifest, encrypted models that nothing decrypts. One repository that cannot be read does not
hide what is wrong with the others. Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from fastserve.errors import FastserveError
from fastserve.lifecycle import integrity, onnx_weights, protected
from fastserve.lifecycle.manifest import MANIFEST_FILES
from fastserve.lifecycle.model_folder import ModelFolder
from fastserve.lifecycle.place import Place
from fastserve.lifecycle.repository import Repositories
from fastserve.lifecycle.settings import ModelDefaults
from fastserve.lifecycle.version_spec import Problem, VersionSpec

T = TypeVar("T")


@dataclass
class CheckedModel:
    """`versions`: all that can be tried; `served`: of these, what the policy serves."""

    name: str
    repository: Path
    versions: Mapping[int, VersionSpec]
    served: frozenset[int]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Checked:
    models: list[CheckedModel]
    unreadable: list[FastserveError]  # repositories as a whole


def check_repositories(repositories: Repositories, *, checksums: bool = True) -> Checked:
    """`checksums`: read every file that a manifest names; else sizes alone are looked at."""
    places: dict[str, list[Place]] = {}
    checked = Checked([], [])
    said: dict[str, list[Problem]] = {}  # by the sources, of single models
    for source in repositories.sources():
        try:
            for place in source.places():
                places.setdefault(place.name, []).append(place)
            for problem in source.problems():
                said.setdefault(problem.model, []).append(problem)
        except FastserveError as error:
            checked.unreadable.append(error)
    for name in sorted(said.keys() - places.keys()):
        checked.models.append(CheckedModel(name, Path(), {}, frozenset(), said[name]))
    for name in sorted(places):
        for place in places[name]:
            model = _check_model(place, repositories.defaults, checksums=checksums)
            model.problems += said.get(name, [])
            if others := [str(other.root) for other in places[name] if other is not place]:
                message = f"the model is in two repositories: {place.root} and {', '.join(others)}"
                model.problems.insert(0, Problem(name, message))
            checked.models.append(model)
    checked.models.sort(key=lambda model: model.name)
    return checked


def _check_model(place: Place, defaults: ModelDefaults, *, checksums: bool) -> CheckedModel:
    found = ModelFolder(place.root, place.name, defaults, place=place).model()
    every = ModelFolder(place.root, place.name, defaults, place=place, every_version=True).model()
    model = CheckedModel(
        place.name,
        place.root,
        every.versions,
        frozenset(found.versions),
        notes=_unique([*found.notes, *every.notes]),
    )
    model.problems = _unique([*found.problems, *every.problems])
    for number, folder in _version_folders(place.path):
        model.problems += _check_manifests(place.name, number, folder, defaults, checksums=checksums)
    for number, spec in sorted(every.versions.items()):
        try:
            if spec.path:
                onnx_weights.check(Path(spec.path))
        except FastserveError as error:
            where = f"{place.name}/{number}/{Path(spec.path).name}"
            model.problems.append(Problem(place.name, str(error), where, version=number))
        if spec.path.endswith(protected.SUFFIX):
            model.problems += _check_encrypted(spec, defaults)
            if not defaults.decrypt_hook:
                model.notes.append(
                    f"version {number} is encrypted: `serve` takes it with --model-decrypt-hook only"
                )
    if hidden := sorted(set(every.versions) - set(found.versions)):
        numbers = ", ".join(str(number) for number in hidden)
        model.notes.append(f"not served, by the version policy: {numbers}")
    return model


def _version_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Also those of a model whose configuration is wrong."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.is_dir() and entry.name.isascii() and entry.name.isdigit()
        ]
    for name in sorted(names, key=int):
        yield int(name), folder / name


def _check_manifests(
    model: str, number: int, folder: Path, defaults: ModelDefaults, *, checksums: bool
) -> list[Problem]:
    present = [name for name in MANIFEST_FILES if (folder / name).is_file()]
    problems = []
    where = f"{model}/{number}"
    if defaults.require_manifest and not present:
        problems.append(
            Problem(model, "has no manifest, which --require-manifest wants", where, version=number)
        )
    for name in present:
        place = f"{where}/{name}"
        try:
            entries = integrity.read_entries(folder / name)
        except FastserveError as error:
            problems.append(Problem(model, str(error), place, version=number))
            continue
        looked_at = entries if checksums else {n: replace(entry, sha256="") for n, entry in entries.items()}
        wrong = integrity.check_files(folder, looked_at)
        problems += [Problem(model, text, place, version=number) for text in wrong]
        if defaults.require_manifest:
            strangers = sorted(set(integrity.files_below(folder)) - entries.keys())
            problems += [Problem(model, f"does not name '{n}'", place, version=number) for n in strangers]
    return problems


def _check_encrypted(spec: VersionSpec, defaults: ModelDefaults) -> list[Problem]:
    """Decrypts it, where that is configured."""
    if not defaults.decrypt_hook:
        return []
    try:
        protected.core_spec(spec)
    except FastserveError as error:
        where = f"{spec.model}/{spec.version}"
        return [Problem(spec.model, str(error), where, version=spec.version)]
    return []


def _unique(items: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(items))
