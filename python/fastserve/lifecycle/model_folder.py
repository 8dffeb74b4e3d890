"""One model's folder: configuration, files beside it, versions -> what is to be loaded, or what is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastserve import errors, plugins
from fastserve.lifecycle import batching_parameters
from fastserve.lifecycle.fingerprint import Fingerprints
from fastserve.lifecycle.labels import read_labels
from fastserve.lifecycle.model_config import (
    CONFIG_FILE,
    REQUEST_CONFIG,
    name_error,
    read_config,
    read_json_config,
)
from fastserve.lifecycle.model_yaml import YAML_FILE, read_model_yaml
from fastserve.lifecycle.place import Place, in_repository
from fastserve.lifecycle.settings import ModelDefaults, Settings, VersionLabelMap, without_config
from fastserve.lifecycle.version_files import finished, list_model
from fastserve.lifecycle.version_spec import Problem, VersionSpec
from fastserve.lifecycle.warm_up_files import FOLDER, read_row

MAX_CONFIG_BYTES = 1 << 20
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # fits an int64
_VERSION_OR_ZEROS = re.compile(r"0*[1-9][0-9]{0,17}")
_MODEL_SUFFIXES = (".xml", ".onnx", ".tflite", ".pdmodel")  # of files that may have any name in listed models

Held = Mapping[int, VersionSpec | None]


@dataclass(frozen=True)
class FoundModel:
    """A model folder: the versions that can be tried, what is wrong, and what the log should say."""

    name: str
    repository: Path
    versions: Mapping[int, VersionSpec]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    labels: VersionLabelMap = ()  # label -> versions with weights
    pinned: bool = False  # never unloaded to make room
    resource_preserving: bool = False  # the old version goes before the new one is loaded
    place: Place | None = None
    waiting: Mapping[int, str] = field(default_factory=dict)  # versions that are not finished, and why


class _Refused(Exception):
    """A model or version that cannot be tried; the text says why, and `where` and `line` in which file."""

    def __init__(self, message: str, where: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.where = where
        self.line = line


class ModelFolder:
    """One model folder while it is read."""

    def __init__(
        self,
        repository: Path,
        name: str,
        defaults: ModelDefaults,
        config: str | None = None,
        *,
        place: Place | None = None,
        held: Held | None = None,
        fingerprints: Fingerprints | None = None,
        every_version: bool = False,
    ) -> None:
        """`config`: JSON of a request, instead of what lies in the folder. `place`: where the model lies, instead of in the
        repository. `held`: versions that are being written, not to be looked at: what they were before, None: not there."""
        self.place = place or in_repository(repository, name)
        self.every_version = every_version  # also those that the version policy does not serve
        self.config = config
        self.repository = self.place.root  # resolved
        self.name = name
        self.path = self.place.path
        self.shown = self.place.shown
        self.defaults = defaults
        self.held = held or {}
        self.fingerprints = fingerprints or Fingerprints(eager_bytes=-1)
        self.folders: dict[int, Path] = {}  # version -> its folder, or the only file
        self.unfinished: list[Problem] = []
        self.broken: dict[int, str] = {}  # versions whose manifest cannot be read, and why
        self.notes: list[str] = []
        self.labels: VersionLabelMap = ()

    def model(self) -> FoundModel:
        if wrong := name_error(self.name):
            return self._found({}, [Problem(self.name, wrong)])
        try:
            self._confine(self.path)
            settings, problems = self._settings()
            if settings is None:
                return self._found({}, problems)
            if self.place.listed is not None:
                settings = self.place.listed.applied_to(settings)
                self.notes += self.place.listed.notes
            self.notes += settings.notes
            self.labels = settings.version_labels
            numbers = self._version_numbers()
        except _Refused as refused:
            return self._found({}, [Problem(self.name, str(refused))])
        except OSError as error:
            return self._found({}, [Problem(self.name, f"cannot be read: {error.strerror or error}")])
        return self._versions(settings, numbers)

    def _versions(self, settings: Settings, numbers: list[int]) -> FoundModel:
        versions: dict[int, VersionSpec] = {}
        problems: list[Problem] = []
        if not numbers:
            problems += self.unfinished
            if not self.held and not problems:
                message = "has no version folder (a folder named 1, 2, ...)"
                problems.append(Problem(self.name, message, self._where()))
        elif settings.version_policy.specific:
            for number in settings.version_policy.specific:
                if number not in numbers and number not in self.held:
                    message = f"version {number} of version_policy.specific has no folder"
                    problems.append(Problem(self.name, message, self._where(), version=number))
        for number in numbers if self.every_version else _served(settings, numbers):
            try:
                versions[number] = self.held.get(number) or self._version(settings, number)
            except _Refused as refused:
                where = refused.where or self._where_version(number)
                problems.append(Problem(self.name, str(refused), where, refused.line, version=number))
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
                problems.append(Problem(self.name, reason, self._where_version(number), version=number))
        return self._found(versions, problems)

    def _found(self, versions: dict[int, VersionSpec], problems: list[Problem]) -> FoundModel:
        listed = self.place.listed
        return FoundModel(
            self.name,
            self.repository,
            versions,
            tuple(problems),
            tuple(self.notes),
            self.labels,
            pinned=listed is not None and listed.pinned,
            resource_preserving=listed is not None and listed.resource_preserving,
            place=self.place,
            waiting={p.version: p.message for p in self.unfinished if p.version is not None},
        )

    def _where(self) -> str:
        return "" if self.shown == self.name else self.shown

    def _where_version(self, number: int) -> str:
        folder = self.folders.get(number, self.path / str(number))
        return str(folder) if folder == self.path else f"{self.shown}/{folder.name}"

    def _settings(self) -> tuple[Settings | None, list[Problem]]:
        if self.config is not None:
            settings, problems = read_json_config(self.name, self.config, self.defaults.host_policies)
            return (None, problems) if settings is None else self._with_files(settings, REQUEST_CONFIG)
        present = [name for name in (CONFIG_FILE, YAML_FILE) if os.path.lexists(self.path / name)]
        if not present or self.path.is_file():
            return without_config(self.name), []
        if len(present) > 1:
            message = f"there is a {CONFIG_FILE} as well: a model has one of the two"
            return None, [Problem(self.name, message, f"{self.shown}/{YAML_FILE}")]
        read: Callable[..., tuple[Settings | None, list[Problem]]]
        read = read_config if present == [CONFIG_FILE] else read_model_yaml
        where = f"{self.shown}/{present[0]}"
        self._confine(self.path / present[0])
        try:
            settings, problems = read(
                self.name, self._text(self.path / present[0]), self.defaults.host_policies
            )
        except _Refused as refused:
            return None, [Problem(self.name, str(refused), where, refused.line)]
        if settings is None:
            return None, [replace(problem, where=where) for problem in problems]
        return self._with_files(settings, where)

    def _text(self, path: Path) -> str:
        if not path.is_file():
            raise _Refused("is not a file")
        content = path.read_bytes()
        if len(content) > MAX_CONFIG_BYTES:
            raise _Refused(f"has {len(content)} bytes, at most {MAX_CONFIG_BYTES} are read")
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise _Refused("is not UTF-8 text", line=line) from None

    def _with_batching(self, settings: Settings) -> Settings:
        """--batching-parameters-file fills what is open; where the model says otherwise, the model wins."""
        if self.defaults.batching is None:
            return settings
        applied = batching_parameters.apply(
            self.defaults.batching, settings.max_batch_rows, settings.scheduling
        )
        return replace(settings, max_batch_rows=applied.max_batch_rows, scheduling=applied.scheduling)

    def _with_own_batching(self, settings: Settings, number: int) -> Settings:
        """The version's batching_params.pbtxt fills what the model's configuration leaves open."""
        path = self.folders[number] / batching_parameters.FILE_NAME
        if not os.path.lexists(path):
            return settings
        where = f"{self._where_version(number)}/{batching_parameters.FILE_NAME}"
        self._confine(path)
        try:
            parameters, errors = batching_parameters.parse_batching_parameters(self._text(path))
        except _Refused as refused:
            raise _Refused(str(refused), where, refused.line) from None
        if errors:
            raise _Refused(errors[0].message, where, errors[0].line)
        applied = batching_parameters.apply(parameters, settings.max_batch_rows, settings.scheduling)
        if applied.differences:
            raise _Refused("; ".join(applied.differences), where)
        self.notes += [
            f"version {number}: {batching_parameters.FILE_NAME}: {note}" for note in parameters.notes
        ]
        return replace(settings, max_batch_rows=applied.max_batch_rows, scheduling=applied.scheduling)

    def _with_files(self, settings: Settings, where: str) -> tuple[Settings | None, list[Problem]]:
        """With what the configuration keeps in files of their own: labels, data for warm-up."""
        labelled, problems = self._with_labels(settings, where)
        warmed, more = self._with_warm_up(labelled or settings, where)
        return (warmed if labelled is not None else None), [*problems, *more]

    def _with_warm_up(self, settings: Settings, where: str) -> tuple[Settings | None, list[Problem]]:
        samples = list(settings.scheduling.warm_up)
        problems, notes = [], []
        for index, name, file, spelled, line in settings.warm_up_files:
            path = self.path / FOLDER / file
            wanted = samples[index].inputs[name]
            try:
                self._confine(path)
                data, behind = read_row(path, wanted)
            except (ValueError, _Refused) as error:
                problems.append(Problem(self.name, f"{spelled}: '{file}': {error}", where, line))
                continue
            if behind:
                notes.append(
                    f"{FOLDER}/{file}: the last {behind} bytes are without effect: a warm-up has one row"
                )
            inputs = {**samples[index].inputs, name: replace(wanted, data=data)}
            samples[index] = replace(samples[index], inputs=inputs)
        scheduling = replace(settings.scheduling, warm_up=tuple(samples))
        read = replace(settings, scheduling=scheduling, notes=(*settings.notes, *notes))
        return (None if problems else read), problems

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
        """Of the version folders that are there and finished, and of those that are held as they were."""
        if self.path.is_file():
            self.folders = {1: self.path}
            return [1]
        pattern = _VERSION_OR_ZEROS if self._has_zeros() else _VERSION
        with os.scandir(self.path) as entries:
            for entry in sorted(entries, key=lambda entry: (len(entry.name), entry.name)):
                if not entry.is_dir():
                    continue
                if pattern.fullmatch(entry.name):
                    self._version_folder(int(entry.name), Path(entry.path))
                elif entry.name.isascii() and entry.name.isdigit():
                    self.notes.append(f"folder {entry.name} is ignored: version folders are named 1, 2, ...")
        return sorted(
            self.folders.keys() | {number for number, spec in self.held.items() if spec is not None}
        )

    def _has_zeros(self) -> bool:
        return self.place.listed is not None and self.place.listed.leading_zeros

    def _version_folder(self, number: int, folder: Path) -> None:
        if number in self.held:
            return
        if number in self.folders:
            first = self.folders[number].name
            self.notes.append(f"folder {folder.name} is ignored: it is the same version as {first}")
            return
        try:
            self._confine(folder)
            said, why = finished(folder, list_model(folder))
        except (OSError, _Refused):  # is said when it is looked at as a version
            said, why = "does not say", ""
        if said == "no":
            where = f"{self.shown}/{folder.name}"
            self.unfinished.append(Problem(self.name, f"is not complete: {why}", where, version=number))
            self.notes.append(f"folder {folder.name} is ignored: it is not complete: {why}")
            return
        self.folders[number] = folder
        if said == "broken":
            self.broken[number] = why

    def _version(self, settings: Settings, number: int) -> VersionSpec:
        folder = self.folders[number]
        self._confine(folder)
        if number in self.broken:
            raise _Refused(self.broken[number])
        if folder.is_file():
            return self._single_file(settings, number, folder)
        folder = Path(os.path.realpath(folder))  # a link may lead elsewhere before the load is through
        settings = self._with_batching(self._with_own_batching(settings, number))
        backend = settings.backend
        if backend == "identity":
            return self._spec(settings, number, backend, "")
        path = self._model_path(folder, settings)
        backend = backend or plugins.backend_for(path)
        if not backend:
            raise _Refused(f"no backend reads '{path.name}'; name one in {CONFIG_FILE} or {YAML_FILE}")
        return self._spec(settings, number, backend, str(path))

    def _spec(self, settings: Settings, number: int, backend: str, path: str) -> VersionSpec:
        try:
            spec = settings.version_spec(number, backend, path, self.defaults)
        except errors.FastserveError as error:
            raise _Refused(error.message) from None
        return replace(spec, fingerprint=self.fingerprints.of(self.folders[number]))

    def _single_file(self, settings: Settings, number: int, file: Path) -> VersionSpec:
        backend = plugins.backend_for(file)
        if not backend:
            raise _Refused(f"no backend reads '{file.name}'")
        if file.stat().st_size == 0:
            raise _Refused("is empty")
        return self._spec(self._with_batching(settings), number, backend, str(file))

    def _model_path(self, folder: Path, settings: Settings) -> Path:
        usual = [
            name
            for name in plugins.MODEL_FILES
            if not settings.backend or plugins.reads(settings.backend, name)
        ]
        names = [settings.file_name] if settings.file_name else usual
        present = [name for name in names if os.path.lexists(folder / name)]
        if not present and self.place.listed is not None and self.place.listed.any_file_name:
            with os.scandir(folder) as entries:
                present = sorted(entry.name for entry in entries if entry.name.endswith(_MODEL_SUFFIXES))
        if not present and not settings.file_name:
            present = [name for name in plugins.ENCRYPTED_FILES if os.path.lexists(folder / name)]
        if not present:
            raise _Refused(f"has no model file: looked for {', '.join(names)}")
        if len(present) > 1:
            raise _Refused(f"has several model files ({', '.join(present)}): set default_model_filename")
        path = folder / present[0]
        self._confine(path)
        if not path.exists():
            raise _Refused(f"'{present[0]}' is a broken link")
        if not path.is_file() and not path.is_dir():  # a pipe would keep its reader waiting
            raise _Refused(f"'{present[0]}' is not a regular file")
        if path.is_file() and path.stat().st_size == 0:
            raise _Refused(f"'{present[0]}' is empty")
        # A SavedModel is a folder; without one of its own it is the version folder.
        return folder if present[0] == "saved_model.pb" else path

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
