"""TensorFlow Serving's model_config_list (--model_config_file), read as it is.

model_config_list { config { name: "resnet" base_path: "/models/resnet" model_platform: "tensorflow"
  model_version_policy { specific { versions: 3 versions: 4 } } version_labels { key: "stable" value: 3 } } }
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastserve import protos
from fastserve.errors import InvalidArgument
from fastserve.label_text import weights_of
from fastserve.lifecycle import pbtxt
from fastserve.lifecycle.listed.listing import Listing, name_errors, refused
from fastserve.lifecycle.pbtxt import Positions, TextError
from fastserve.lifecycle.place import ListedModel
from fastserve.lifecycle.settings import VersionPolicy

_CONFIG = ("model_config_list", 0, "config")


def read_model_config_list(text: str, where: str) -> Listing:
    """`where`: the file, for messages. InvalidArgument has every problem, each with file and line."""
    message = protos.message_class("fastserve.ModelServerConfig")()
    positions, errors = pbtxt.parse(text, message)
    if not errors:
        errors = list(_errors(message, positions))
    if errors:
        raise refused(where, errors)
    configs = message.model_config_list.config
    return Listing(tuple(_model(c, positions.line(*_CONFIG, i), where) for i, c in enumerate(configs)))


def single_model(name: str, base_path: str, where: str) -> ListedModel:
    """The form without a file: --model_name, --model_base_path."""
    return ListedModel(name, base_path, where, leading_zeros=True, any_file_name=True)


def _errors(message: Any, positions: Positions) -> Iterator[TextError]:
    if message.WhichOneof("config") == "custom_model_config":
        yield TextError(
            positions.line("custom_model_config"), "custom_model_config is not supported: list the models"
        )
    configs = message.model_config_list.config
    lines = [positions.line(*_CONFIG, index) for index in range(len(configs))]
    names = [(config.name, positions.line(*_CONFIG, index, "name")) for index, config in enumerate(configs)]
    yield from name_errors(names, "name")
    for index, config in enumerate(configs):
        at = (*_CONFIG, index)
        if not config.base_path:
            yield TextError(lines[index], "base_path is missing")
        elif not config.base_path.startswith("/") and "://" not in config.base_path:
            yield TextError(
                positions.line(*at, "base_path"),
                f"base_path: got '{config.base_path[:200]}', want an absolute path",
            )
        if config.model_platform not in ("", "tensorflow"):
            line = positions.line(*at, "model_platform")
            yield TextError(line, f"model_platform: got '{config.model_platform[:64]}', want tensorflow")
        if config.model_type == config.OTHER:
            yield TextError(positions.line(*at, "model_type"), "model_type: got OTHER, want TENSORFLOW")
        yield from _policy_errors(config.model_version_policy, positions, (*at, "model_version_policy", 0))
        yield from _label_errors(config.version_labels, positions, (*at, "version_labels"))


def _policy_errors(policy: Any, positions: Positions, at: tuple[str | int, ...]) -> Iterator[TextError]:
    if policy.WhichOneof("policy_choice") != "specific":
        return
    if not policy.specific.versions:
        yield TextError(positions.line(*at), "model_version_policy.specific: versions is empty")
    for index, version in enumerate(policy.specific.versions):
        if version < 1:
            line = positions.line(*at, "specific", 0, "versions", index)
            yield TextError(line, f"model_version_policy.specific.versions: got {version}, want at least 1")


def _label_errors(labels: Any, positions: Positions, at: tuple[str | int, ...]) -> Iterator[TextError]:
    for label, version in sorted(labels.items()):
        line = positions.line(*positions.map_entry(at, label))
        if version < 1:
            yield TextError(line, f"version_labels: '{label[:64]}': got version {version}, want at least 1")
            continue
        try:
            weights_of(label, {version: 1})
        except InvalidArgument as error:
            yield TextError(line, f"version_labels: {error}")


def _model(config: Any, line: int, where: str) -> ListedModel:
    notes = []
    if config.HasField("logging_config") or config.logging_configs:
        notes.append("logging_config is without effect: requests are not logged")
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            versions = VersionPolicy(latest=0)
        case "specific":
            versions = VersionPolicy(specific=tuple(sorted(set(policy.specific.versions))))
        case _:
            versions = VersionPolicy(latest=policy.latest.num_versions or 1)
    return ListedModel(
        config.name,
        config.base_path,
        where,
        line,
        version_policy=versions,
        labels=tuple((label, ((version, 1.0),)) for label, version in sorted(config.version_labels.items())),
        leading_zeros=True,
        any_file_name=True,
        notes=tuple(notes),
    )
