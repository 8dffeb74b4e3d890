"""Walks model repositories in Triton's layout: <repository>/<model>/[config.pbtxt or model.yaml] <version>/model.*

Reads folders and configurations, opens no model. Whatever is wrong with one model or version is a Problem of its own and
does not touch the others.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastserve import errors
from fastserve.lifecycle.model_config import name_error
from fastserve.lifecycle.model_folder import FoundModel, ModelFolder
from fastserve.lifecycle.reconciler import ModelState
from fastserve.lifecycle.settings import ModelDefaults
from fastserve.lifecycle.version_spec import Problem, VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

_NOT_MODELS = {"lost+found"}  # of a file system that is mounted as the repository


@dataclass(frozen=True)
class Scan:
    models: tuple[FoundModel, ...]

    @property
    def wanted(self) -> dict[str, dict[int, VersionSpec]]:
        return {model.name: dict(model.versions) for model in self.models if model.versions}

    @property
    def problems(self) -> list[Problem]:
        return [problem for model in self.models for problem in model.problems]

    @property
    def failures(self) -> list[ModelState]:
        """What does not get as far as the engine: one state a model or version, with every reason."""
        reasons: dict[tuple[str, int | None], list[str]] = {}
        for problem in self.problems:
            reasons.setdefault((problem.model, problem.version), []).append(str(problem))
        return [ModelState(model, version, "FAILED", "; ".join(r)) for (model, version), r in reasons.items()]


@dataclass(frozen=True)
class Repositories:
    """Where models are looked for, again and again. Blocking; any thread."""

    paths: tuple[Path, ...] = ()
    defaults: ModelDefaults = field(default_factory=ModelDefaults)

    def scan(self, names: Collection[str] | None = None) -> Scan:
        return scan_repositories(self.paths, self.defaults, names)

    def names(self) -> list[str]:
        """Of every folder that could be a model; reads none of them. Raises as scan_repositories does."""
        found = {name for path in self.paths for name in _model_names(_root(path))}
        return sorted(name for name in found if not name_error(name))


def scan_repositories(
    repositories: Sequence[Path],
    defaults: ModelDefaults | None = None,
    names: Collection[str] | None = None,
) -> Scan:
    """`defaults`: for models that do not say it themselves. `names`: these models alone, as far as they are there. Raises
    NotFound, InvalidArgument, PermissionDenied when a repository itself cannot be read."""
    found: dict[str, FoundModel] = {}
    for repository in dict.fromkeys(_root(path) for path in repositories):
        for name in _model_names(repository):
            if names is not None and name not in names:
                continue
            model = ModelFolder(repository, name, defaults or ModelDefaults()).model()
            if (other := found.get(name)) is not None:
                message = f"the model is in two repositories: {other.repository} and {repository}"
                model = FoundModel(name, repository, {}, (Problem(name, message),))
            found[name] = model
    for model in found.values():
        for note in model.notes:
            logger.info("%s: %s", model.name, note, extra={"model": model.name})
    return Scan(tuple(found[name] for name in sorted(found)))


def _root(path: Path) -> Path:
    if not path.exists():
        raise errors.NotFound(
            f"model repository '{path}' does not exist; create it or correct --model-repository"
        )
    if not path.is_dir():
        raise errors.InvalidArgument(f"model repository '{path}' is not a folder")
    return path.resolve()


def _model_names(repository: Path) -> list[str]:
    try:
        with os.scandir(repository) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.is_dir() and not entry.name.startswith(".") and entry.name not in _NOT_MODELS
            )
    except OSError as error:
        raise errors.PermissionDenied(
            f"model repository '{repository}' cannot be read: {error.strerror or error}"
        ) from None
