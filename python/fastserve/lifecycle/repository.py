"""Reads models, wherever they come from (sources.py): <repository>/<model>/[config.pbtxt or model.yaml] <version>/model.*

Reads folders and configurations, opens no model. Whatever is wrong with one model or version is a Problem of its own and
does not touch the others.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastserve.lifecycle.fingerprint import Fingerprints
from fastserve.lifecycle.listed.model_list import ModelList
from fastserve.lifecycle.model_folder import FoundModel, Held, ModelFolder
from fastserve.lifecycle.place import Place
from fastserve.lifecycle.settings import ModelDefaults
from fastserve.lifecycle.sources import Mirror, Source, sources_of
from fastserve.lifecycle.version_record import ModelState
from fastserve.lifecycle.version_spec import Problem, VersionSpec

logger = logging.getLogger("fastserve.lifecycle")


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

    paths: tuple[Path | str, ...] = ()  # a text with :// is remote, and needs a mirror
    defaults: ModelDefaults = field(default_factory=ModelDefaults)
    lists: tuple[ModelList, ...] = ()
    mirror: Mirror | None = None
    fingerprints: Fingerprints = field(default_factory=Fingerprints, compare=False)

    def sources(self) -> list[Source]:
        """Raises InvalidArgument, NotFound: a list cannot be read, with file and line."""
        return sources_of(self.paths, self.lists, self.mirror)

    def scan(self, names: Collection[str] | None = None) -> Scan:
        """`names`: these models alone, as far as they are there. Raises NotFound, InvalidArgument, PermissionDenied,
        Unavailable when a repository itself cannot be read."""
        for entry in self.lists:
            entry.refresh()
        places: dict[str, list[Place]] = {}
        problems: dict[str, list[Problem]] = {}
        for source in self.sources():
            for place in source.places(names):
                places.setdefault(place.name, []).append(place)
            for problem in source.problems():
                if names is None or problem.model in names:
                    problems.setdefault(problem.model, []).append(problem)
        models = [
            self.model(name, places.get(name, ()), problems.get(name, ())) for name in {*places, *problems}
        ]
        return Scan(tuple(sorted(models, key=lambda model: model.name)))

    def model(
        self,
        name: str,
        places: Sequence[Place],
        problems: Sequence[Problem] = (),
        held: Held | None = None,
    ) -> FoundModel:
        """`problems`: that its source has with it. `held`: as ModelFolder has it."""
        if len({place.source for place in places}) > 1:
            first, second = (_repository_of(place) for place in places[:2])
            message = f"the model is in two repositories: {first} and {second}"
            return FoundModel(name, places[0].root, {}, (Problem(name, message),), place=places[0])
        if not places:
            return FoundModel(name, Path(), {}, tuple(problems))
        model = self.read(places[0], held=held)
        for note in model.notes:
            logger.info("%s: %s", model.name, note, extra={"model": model.name})
        return replace(model, problems=(*model.problems, *problems)) if problems else model

    def read(self, place: Place, config: str | None = None, held: Held | None = None) -> FoundModel:
        """`config`: JSON of a request, instead of what lies in the folder."""
        folder = ModelFolder(
            place.root,
            place.name,
            self.defaults,
            config,
            place=place,
            held=held,
            fingerprints=self.fingerprints,
        )
        return folder.model()

    def names(self) -> list[str]:
        """Of every folder that could be a model; reads none of them. Raises as scan does."""
        return sorted({name for source in self.sources() for name in source.names()})


def scan_repositories(
    repositories: Sequence[Path | str],
    defaults: ModelDefaults | None = None,
    names: Collection[str] | None = None,
) -> Scan:
    """`defaults`: for models that do not say it themselves. Raises as Repositories.scan does."""
    return Repositories(tuple(repositories), defaults or ModelDefaults()).scan(names)


def _repository_of(place: Place) -> str:
    return str(place.root) if place.listed is None else place.source
