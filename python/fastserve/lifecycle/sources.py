"""Where models come from: repositories (folders of models, also remote ones), and files that list models.

Each source says which models it has and where they lie; nothing of them is read here. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fastserve import errors
from fastserve.lifecycle.listed.model_list import ModelList
from fastserve.lifecycle.model_config import name_error
from fastserve.lifecycle.place import ListedModel, Place
from fastserve.lifecycle.remote.urls import redacted
from fastserve.lifecycle.version_spec import Problem

_NOT_MODELS = {"lost+found"}  # of a file system that is mounted as the repository
_TEMPORARY_PREFIXES = (".", "_tmp")
_TEMPORARY_SUFFIXES = (".tmp", ".part", ".partial")


class Mirror(Protocol):
    """The part of remote.mirror.Mirror that is used here."""

    def local(self, url: str) -> Path: ...
    def update(self, url: str, names: Collection[str] | None = None) -> None: ...
    def names(self, url: str) -> list[str]: ...
    def problems(self, url: str) -> list[Problem]: ...


class Source(Protocol):
    """`text`: as the operator wrote it."""

    @property
    def text(self) -> str: ...
    @property
    def settles(self) -> bool:
        """Whether somebody may be writing there; else what shows is complete."""

    def folder(self) -> Path | None:
        """The folder whose folders are the models; None: there is no such thing."""

    def names(self) -> list[str]:
        """Of all that could be a model. Raises as `places` does."""

    def places(
        self, names: Collection[str] | None = None, known: Mapping[str, Place] | None = None
    ) -> list[Place]:
        """`names`: these alone. `known`: what was said before, by name, for speed. Raises NotFound, InvalidArgument,
        PermissionDenied, Unavailable: it cannot be read."""

    def problems(self) -> list[Problem]:
        """Of single models, before anything of them was read."""


def is_remote(path: str | Path) -> bool:
    return "://" in str(path)


@dataclass(frozen=True)
class RepositorySource:
    path: str | Path  # a URL for remote ones
    mirror: Mirror | None = None
    defaults: ListedModel | None = None  # what a list says of all its models

    @property
    def text(self) -> str:
        return redacted(self.path)

    @property
    def settles(self) -> bool:
        return not is_remote(self.path)

    def folder(self) -> Path | None:
        return (
            _mirror(self.mirror, self.text).local(str(self.path)) if is_remote(self.path) else Path(self.path)
        )

    def names(self) -> list[str]:
        if is_remote(self.path):
            return _mirror(self.mirror, self.text).names(str(self.path))
        return [name for name in model_names(repository_root(Path(self.path))) if not name_error(name)]

    def places(
        self, names: Collection[str] | None = None, known: Mapping[str, Place] | None = None
    ) -> list[Place]:
        if is_remote(self.path):
            _mirror(self.mirror, self.text).update(self.text, names)
        folder = self.folder()
        assert folder is not None
        root = repository_root(folder)
        found = []
        for name in model_names(root):
            if names is not None and name not in names:
                continue
            place = known.get(name) if known is not None else None
            same = place is not None and place.root == root and place.listed == self.defaults
            found.append(
                place
                if place is not None and same
                else Place(name, root, root / name, self.text, self.defaults)
            )
        return found

    def problems(self) -> list[Problem]:
        return (
            self.mirror.problems(str(self.path)) if self.mirror is not None and is_remote(self.path) else []
        )


@dataclass(frozen=True)
class ListSource:
    """The models that a list names one by one; its repositories are sources of their own."""

    models: ModelList
    mirror: Mirror | None = None

    @property
    def text(self) -> str:
        return str(self.models.path or self.models.kind)

    @property
    def settles(self) -> bool:
        return True

    def folder(self) -> Path | None:
        return None

    def names(self) -> list[str]:
        return [model.name for model in self.models.listing().models]

    def places(
        self, names: Collection[str] | None = None, known: Mapping[str, Place] | None = None
    ) -> list[Place]:
        models = [m for m in self.models.listing().models if names is None or m.name in names]
        return [self._place(model) for model in models]

    def problems(self) -> list[Problem]:
        return list(self.models.listing().problems)

    def _place(self, model: ListedModel) -> Place:
        if is_remote(model.base_path):
            repository, _, name = model.base_path.rstrip("/").rpartition("/")
            mirror = _mirror(self.mirror, model.base_path)
            mirror.update(repository, [name])
            root = mirror.local(repository)
            return Place(model.name, root, root / name, self.text, model)
        path = Path(os.path.realpath(model.base_path))
        return Place(model.name, path.parent if path.is_file() else path, path, self.text, model)


def sources_of(
    paths: Iterable[str | Path], lists: Iterable[ModelList] = (), mirror: Mirror | None = None
) -> list[Source]:
    """Each once, however often it was given. Raises what ModelList.listing raises."""
    found: dict[str, Source] = {}
    for path in paths:
        found.setdefault(_key(path), RepositorySource(path, mirror))
    for entry in lists:
        for listed in entry.listing().repositories:
            source = RepositorySource(listed.base_path, mirror, listed)
            found.setdefault(_key(listed.base_path), source)
        found[f"list {entry.kind} {entry.path}"] = ListSource(entry, mirror)
    return list(found.values())


def repository_root(path: Path) -> Path:
    if not path.exists():
        raise errors.NotFound(
            f"model repository '{path}' does not exist; create it or correct --model-repository"
        )
    if not path.is_dir():
        raise errors.InvalidArgument(f"model repository '{path}' is not a folder")
    return path.resolve()


def model_names(repository: Path) -> list[str]:
    """Of every folder that could be a model. PermissionDenied: it cannot be read."""
    try:
        with os.scandir(repository) as entries:
            return sorted(entry.name for entry in entries if _may_be_model(entry))
    except OSError as error:
        raise errors.PermissionDenied(
            f"model repository '{repository}' cannot be read: {error.strerror or error}"
        ) from None


def _may_be_model(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    temporary = name.startswith(_TEMPORARY_PREFIXES) or name.endswith(_TEMPORARY_SUFFIXES)
    return not temporary and name not in _NOT_MODELS and entry.is_dir()


def _key(path: str | Path) -> str:
    return str(path) if is_remote(path) else os.path.realpath(path)


def _mirror(mirror: Mirror | None, url: str) -> Mirror:
    if mirror is None:
        raise errors.InvalidArgument(f"'{redacted(url)}': remote repositories are not switched on")
    return mirror
