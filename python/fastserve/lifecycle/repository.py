"""Walks model repositories in Triton's layout: <repository>/<model>/[config.pbtxt] <version>/model.*

Reads folders and config.pbtxt, opens no model. Whatever is wrong with one model or version is a Problem of its own and
does not touch the others.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastserve import errors, plugins
from fastserve.lifecycle.fingerprint import fingerprint
from fastserve.lifecycle.labels import read_labels
from fastserve.lifecycle.model_config import CONFIG_FILE, Settings, name_error, read_config, without_config
from fastserve.lifecycle.reconciler import ModelState
from fastserve.lifecycle.version_spec import Problem, VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

MAX_CONFIG_BYTES = 1 << 20
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # fits an int64
_NOT_MODELS = {"lost+found"}  # of a file system that is mounted as the repository


@dataclass(frozen=True)
class FoundModel:
    """A model folder: the versions that can be tried, what is wrong, and what the log should say."""

    name: str
    repository: Path
    versions: Mapping[int, VersionSpec]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


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
    backend_parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def scan(self, names: Collection[str] | None = None) -> Scan:
        return scan_repositories(self.paths, self.backend_parameters, names)

    def names(self) -> list[str]:
        """Of every folder that could be a model; reads none of them. Raises as scan_repositories does."""
        found = {name for path in self.paths for name in _model_names(_root(path))}
        return sorted(name for name in found if not name_error(name))


def scan_repositories(
    repositories: Sequence[Path],
    backend_parameters: Mapping[str, Mapping[str, str]] | None = None,
    names: Collection[str] | None = None,
) -> Scan:
    """`backend_parameters`: backend -> parameters for models that do not set them. `names`: these models alone, as far as
    they are there. Raises NotFound, InvalidArgument, PermissionDenied when a repository itself cannot be read."""
    found: dict[str, FoundModel] = {}
    for repository in dict.fromkeys(_root(path) for path in repositories):
        for name in _model_names(repository):
            if names is not None and name not in names:
                continue
            model = _Folder(repository, name, backend_parameters or {}).model()
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


class _Refused(Exception):
    """A version that cannot be tried; the text says why."""


class _Folder:
    """One model folder while it is read."""

    def __init__(
        self, repository: Path, name: str, backend_parameters: Mapping[str, Mapping[str, str]]
    ) -> None:
        self.repository = repository  # resolved
        self.name = name
        self.path = repository / name
        self.backend_parameters = backend_parameters
        self.notes: list[str] = []

    def model(self) -> FoundModel:
        if wrong := name_error(self.name):
            return self._found({}, [Problem(self.name, wrong)])
        try:
            self._confine(self.path)
            settings, problems = self._settings()
            if settings is None:
                return self._found({}, problems)
            self.notes += settings.notes
            numbers = self._version_numbers()
        except _Refused as refused:
            return self._found({}, [Problem(self.name, str(refused))])
        except OSError as error:
            return self._found({}, [Problem(self.name, f"cannot be read: {error.strerror or error}")])
        return self._versions(settings, numbers)

    def _versions(self, settings: Settings, numbers: list[int]) -> FoundModel:
        versions: dict[int, VersionSpec] = {}
        problems = []
        if not numbers:
            problems.append(Problem(self.name, "has no version folder (a folder named 1, 2, ...)"))
        elif settings.version_policy.specific:
            for number in settings.version_policy.specific:
                if number not in numbers:
                    message = f"version {number} of version_policy.specific has no folder"
                    problems.append(Problem(self.name, message, version=number))
        for number in _served(settings, numbers):
            try:
                versions[number] = self._version(settings, number)
            except (_Refused, OSError) as error:
                reason = (
                    str(error)
                    if isinstance(error, _Refused)
                    else f"cannot be read: {error.strerror or error}"
                )
                problems.append(Problem(self.name, reason, f"{self.name}/{number}", version=number))
        return self._found(versions, problems)

    def _found(self, versions: dict[int, VersionSpec], problems: list[Problem]) -> FoundModel:
        return FoundModel(self.name, self.repository, versions, tuple(problems), tuple(self.notes))

    def _settings(self) -> tuple[Settings | None, list[Problem]]:
        path = self.path / CONFIG_FILE
        if not os.path.lexists(path):
            return without_config(self.name), []
        self._confine(path)
        content = path.read_bytes() if path.is_file() else None
        where = f"{self.name}/{CONFIG_FILE}"
        if content is None:
            return None, [Problem(self.name, "is not a file", where)]
        if len(content) > MAX_CONFIG_BYTES:
            return None, [
                Problem(self.name, f"has {len(content)} bytes, at most {MAX_CONFIG_BYTES} are read", where)
            ]
        try:
            settings, problems = read_config(self.name, content.decode("utf-8"))
            return self._with_labels(settings, where) if settings is not None else (None, problems)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            return None, [Problem(self.name, "is not UTF-8 text", where, line)]

    def _with_labels(self, settings: Settings, where: str) -> tuple[Settings | None, list[Problem]]:
        labels = []
        problems = []
        for output, name, line in settings.label_files:
            try:
                self._confine(self.path / name)
                labels.append((output, read_labels(self.path / name)))
            except (ValueError, _Refused) as error:
                text = f"output.label_filename: '{name}': {error}"
                problems.append(Problem(self.name, text, where, line))
        return (None, problems) if problems else (replace(settings, labels=tuple(sorted(labels))), [])

    def _version_numbers(self) -> list[int]:
        numbers = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if not entry.is_dir():
                    continue
                if _VERSION.fullmatch(entry.name):
                    numbers.append(int(entry.name))
                elif entry.name.isascii() and entry.name.isdigit():
                    self.notes.append(f"folder {entry.name} is ignored: version folders are named 1, 2, ...")
        return sorted(numbers)

    def _version(self, settings: Settings, number: int) -> VersionSpec:
        folder = self.path / str(number)
        self._confine(folder)
        backend = settings.backend
        if backend == "identity":
            return self._spec(settings, number, backend, "")
        path = self._model_path(folder, settings)
        backend = backend or plugins.backend_for(path)
        if not backend:
            raise _Refused(f"no backend reads '{path.name}'; name one in {CONFIG_FILE}")
        return self._spec(settings, number, backend, str(path))

    def _spec(self, settings: Settings, number: int, backend: str, path: str) -> VersionSpec:
        spec = settings.version_spec(number, backend, path, self._defaults(backend))
        return replace(spec, fingerprint=fingerprint(self.path / str(number)))

    def _defaults(self, backend: str) -> dict[str, str]:
        return dict(self.backend_parameters.get(backend, {}))

    def _model_path(self, folder: Path, settings: Settings) -> Path:
        usual = [
            name
            for name in plugins.MODEL_FILES
            if not settings.backend or self._reads(settings.backend, name)
        ]
        names = [settings.file_name] if settings.file_name else usual
        present = [name for name in names if os.path.lexists(folder / name)]
        if not present:
            raise _Refused(f"has no model file: looked for {', '.join(names)}")
        if len(present) > 1:
            raise _Refused(f"has several model files ({', '.join(present)}): set default_model_filename")
        path = folder / present[0]
        self._confine(path)
        if not path.exists():
            raise _Refused(f"'{present[0]}' is a broken link")
        if path.is_file() and path.stat().st_size == 0:
            raise _Refused(f"'{present[0]}' is empty")
        # A SavedModel is a folder; without one of its own it is the version folder.
        return folder if present[0] == "saved_model.pb" else path

    @staticmethod
    def _reads(backend: str, name: str) -> bool:
        return plugins.MODEL_FILES[name] == backend

    def _confine(self, path: Path) -> None:
        """A link may point anywhere inside its repository and nowhere else."""
        real = Path(os.path.realpath(path))  # resolve() raises on a loop of links
        if real != self.repository and self.repository not in real.parents:
            shown = path.relative_to(self.repository)
            raise _Refused(f"'{shown}' is a link that leaves the repository (to {real})")


def _served(settings: Settings, numbers: list[int]) -> Iterator[int]:
    policy = settings.version_policy
    if policy.specific:
        yield from (number for number in numbers if number in policy.specific)
    else:
        yield from numbers if policy.latest == 0 else numbers[-policy.latest :]
