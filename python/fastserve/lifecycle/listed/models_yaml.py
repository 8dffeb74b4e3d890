"""Our own file that lists models and repositories (--models-file). Every key:

    defaults:                          # for every entry below that does not say it
      versions: {latest: 2}            # or {specific: [1, 3]}, or all
      transition: availability         # resource: the old version goes before the new one is loaded
      pinned: false                    # true: never unloaded to make room
    repositories:
      - /srv/models                    # folders of models; the keys of `defaults` may stand beside `path`
      - {path: s3://bucket/models, transition: resource}
    models:
      - name: digits
        path: /srv/digits              # its folder, or one file: version 1. Relative to this file
        versions: {latest: 2}
        version_labels: {stable: 3, canary: {3: 95, 4: 5}}
        pinned: true
        transition: availability

What a list says wins over the model's own configuration.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fastserve.errors import InvalidArgument
from fastserve.label_text import weights_of
from fastserve.lifecycle.listed.listing import Listing, name_errors, refused
from fastserve.lifecycle.model_yaml_schema import LabelName, LabelVersion, Text, Versions, Weight
from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.place import ListedModel
from fastserve.lifecycle.settings import VersionLabelMap, VersionPolicy
from fastserve.lifecycle.version_labels import MAX_LABELS
from fastserve.lifecycle.yaml_errors import spelled, worded
from fastserve.lifecycle.yaml_lines import Path, YamlDocument, YamlError, read_yaml

Transition = Literal["availability", "resource"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _all(value: Any) -> Any:
    return {"all": True} if value == "all" else value


def _weighted(value: Any) -> Any:
    """`stable: 3`."""
    return {value: 1} if type(value) is int else value


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class Defaults(_Section):
    versions: Annotated[Versions | None, BeforeValidator(_all)] = None
    transition: Transition | None = None
    pinned: bool | None = None


class Repository(Defaults):
    path: Text


class Model(Defaults):
    name: Text
    path: Text
    version_labels: Annotated[
        dict[LabelName, Annotated[dict[LabelVersion, Weight], BeforeValidator(_weighted)]],
        Field(max_length=MAX_LABELS),
    ] = {}


class ModelsYaml(_Section):
    defaults: Defaults = Defaults()
    repositories: tuple[Annotated[Repository, BeforeValidator(_path_alone)], ...] = ()
    models: tuple[Model, ...] = ()


def read_models_yaml(text: str, where: str) -> Listing:
    """`where`: the file, for messages and relative paths. InvalidArgument has every problem, each with file and line."""
    try:
        document = read_yaml(text)
        written = ModelsYaml.model_validate(document.data)
    except YamlError as error:
        raise refused(where, [TextError(error.line, str(error))]) from None
    except ValidationError as error:
        raise refused(where, worded(error, ModelsYaml, document)) from None
    errors = list(_errors(written, document))
    if errors:
        raise refused(where, errors)
    folder = os.path.dirname(os.path.abspath(where))
    models = []
    for index, model in enumerate(written.models):
        line = document.line(("models", index))
        models.append(_listed(model, written.defaults, model.name, folder, where, line, _labels(model)))
    repositories = []
    for index, repository in enumerate(written.repositories):
        line = document.line(("repositories", index))
        repositories.append(_listed(repository, written.defaults, "", folder, where, line, ()))
    return Listing(tuple(models), tuple(repositories))


def _errors(written: ModelsYaml, document: YamlDocument) -> Iterator[TextError]:
    lines = [document.line(("models", index, "name")) for index in range(len(written.models))]
    yield from name_errors(zip((m.name for m in written.models), lines, strict=True), "name")
    entries: list[tuple[Path, Defaults]] = [(("defaults",), written.defaults)]
    entries += [(("repositories", i), entry) for i, entry in enumerate(written.repositories)]
    entries += [(("models", i), entry) for i, entry in enumerate(written.models)]
    for path, entry in entries:
        versions = entry.versions
        if versions is None:
            continue
        given = [versions.latest is not None, versions.specific is not None, versions.all]
        if sum(given) != 1 or versions.specific == ():
            at = (*path, "versions")
            yield TextError(document.line(at), f"{spelled(at)}: want one of latest, specific, all")
    for index, model in enumerate(written.models):
        for label, weights in model.version_labels.items():
            try:
                weights_of(label, weights)
            except InvalidArgument as error:
                at = ("models", index, "version_labels", label)
                yield TextError(document.line(at), f"{spelled(at[:2])}.version_labels: {error}")


def _labels(model: Model) -> VersionLabelMap:
    return tuple(
        sorted((label, tuple(sorted(weights.items()))) for label, weights in model.version_labels.items())
    )


def _listed(
    entry: Repository | Model,
    defaults: Defaults,
    name: str,
    folder: str,
    where: str,
    line: int,
    labels: VersionLabelMap,
) -> ListedModel:
    versions = entry.versions or defaults.versions
    pinned = entry.pinned if entry.pinned is not None else defaults.pinned
    return ListedModel(
        name,
        entry.path if "://" in entry.path else os.path.join(folder, entry.path),
        where,
        line,
        version_policy=None if versions is None else _policy(versions),
        labels=labels,
        pinned=bool(pinned),
        resource_preserving=(entry.transition or defaults.transition) == "resource",
    )


def _policy(versions: Versions) -> VersionPolicy:
    if versions.all:
        return VersionPolicy(latest=0)
    if versions.specific is not None:
        return VersionPolicy(specific=tuple(sorted(set(versions.specific))))
    return VersionPolicy(latest=versions.latest or 1)
