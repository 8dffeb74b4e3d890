"""OpenVINO Model Server's config.json, read as it is. README.md in the folder above: which fields have an effect.

    {"model_config_list": [{"config": {"name": "resnet", "base_path": "/models/resnet", "nireq": 4,
                                       "plugin_config": {"NUM_STREAMS": "2"}}}]}

What we cannot do is refused for the model that asks for it; the others are served.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from fastserve.lifecycle.listed.json_lines import JsonDocument, JsonError, read_json
from fastserve.lifecycle.listed.listing import Listing, name_errors, refused
from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.place import ListedModel
from fastserve.lifecycle.settings import VersionPolicy
from fastserve.lifecycle.version_spec import Problem
from fastserve.lifecycle.yaml_errors import spelled
from fastserve.lifecycle.yaml_lines import Path
from fastserve.scheduling import MAX_ROWS

MAX_NIREQ = 8  # infer requests that an instance has: the most that the backend takes as `depth`

# Field of a model -> why it has no effect.
_WITHOUT_EFFECT = {
    "allow_cache": "--openvino-cache-dir holds for all models",
    "idle_sequence_cleanup": "there are no sequences",
    "low_latency_transformation": "there are no sequences",
    "max_sequence_number": "there are no sequences",
    "metrics": "metrics are always on",
}
# Field -> what it would do.
_REFUSED = {
    "shape": "models are not reshaped",
    "mean": "inputs are taken as they are",
    "scale": "inputs are taken as they are",
    "color_format": "inputs are taken as they are",
    "precision": "inputs are taken as they are",
    "custom_loader_options": "there are no custom loaders",
    "graph_path": "MediaPipe graphs are not supported",
    "subconfig": "MediaPipe graphs are not supported",
}
_OTHERS = {
    "name", "base_path", "batch_size", "layout", "nireq", "target_device", "plugin_config", "model_version_policy", "stateful",
}  # fmt: skip
_FIELDS = {*_WITHOUT_EFFECT, *_REFUSED, *_OTHERS}
_REFUSED_LISTS = {
    "mediapipe_config_list": "MediaPipe graphs are not supported",
    "pipeline_config_list": "pipelines are not supported",
    "custom_node_library_config_list": "custom nodes are not supported",
    "custom_loader_config_list": "custom loaders are not supported",
}
_TOP = {"model_config_list", "monitoring", *_REFUSED_LISTS}
_NOTHING: tuple[Any, ...] = (None, "", 0, False, {}, [])


def read_config_json(text: str, where: str) -> Listing:
    """`where`: the file, for messages. InvalidArgument: nothing of it can be trusted; file and line."""
    try:
        document = read_json(text)
    except JsonError as error:
        raise refused(where, [error.error]) from None
    errors = list(_structure_errors(document))
    if errors:
        raise refused(where, errors)
    models, problems = [], []
    for index, entry in enumerate(document.data["model_config_list"]):
        reader = _Model(document, ("model_config_list", index, "config"), entry["config"], where)
        model = reader.model()
        if reader.errors:
            problems += [Problem(model.name, error.message, where, error.line) for error in reader.errors]
        else:
            models.append(model)
    problems += _refused_lists(document, where)
    notes = (
        [] if "monitoring" not in document.data else ["monitoring is without effect: metrics are always on"]
    )
    return Listing(tuple(models), problems=tuple(problems), notes=tuple(notes))


def _structure_errors(document: JsonDocument) -> Iterator[TextError]:
    data = document.data
    if not isinstance(data, dict):
        yield TextError(1, "got something else, want an object with model_config_list")
        return
    for key in data:
        if key not in _TOP:
            yield TextError(document.line((key,)), f"unknown field '{key[:64]}'{_suggestion(key, _TOP)}")
    entries = data.get("model_config_list")
    if not isinstance(entries, list):
        yield TextError(document.line(("model_config_list",)), "model_config_list: want a list")
        return
    names = []
    for index, entry in enumerate(entries):
        path = ("model_config_list", index)
        if not isinstance(entry, dict) or not isinstance(entry.get("config"), dict) or len(entry) != 1:
            yield TextError(document.line(path), f'{spelled(path)}: want {{"config": {{...}}}}')
            continue
        for key in ("name", "base_path"):
            value = entry["config"].get(key)
            if not isinstance(value, str) or not value:
                line = document.line((*path, "config", key))
                yield TextError(line, f"{spelled((*path, 'config', key))}: got {_shown(value)}, want a text")
        name = entry["config"].get("name")
        if isinstance(name, str) and name:
            names.append((name, document.line((*path, "config", "name"))))
    yield from name_errors(names, "name")


def _refused_lists(document: JsonDocument, where: str) -> Iterator[Problem]:
    for key, why in _REFUSED_LISTS.items():
        for index, entry in enumerate(document.data.get(key) or ()):
            path: Path = (key, index)
            name = entry.get("name") if isinstance(entry, dict) else None
            shown = name if isinstance(name, str) and name else spelled(path)
            yield Problem(shown, f"{spelled(path)}: {why}", where, document.line(path))


class _Model:
    """One `config`; `errors` are there after `model()`."""

    def __init__(self, document: JsonDocument, path: Path, config: Mapping[str, Any], where: str) -> None:
        self.document, self.path, self.config, self.where = document, path, config, where
        self.errors: list[TextError] = []
        self.notes: list[str] = []

    def model(self) -> ListedModel:
        self._look_at_fields()
        parameters = self._plugin_config() | self._nireq() | self._target_device()
        self._layout()
        if self.config.get("stateful", False) not in _NOTHING:
            self._refuse("stateful", "models with states are not supported")
        return ListedModel(
            self.config["name"],
            self._base_path(),
            self.where,
            self.document.line((*self.path, "name")),
            version_policy=self._version_policy(),
            max_batch_rows=self._batch_size(),
            parameters=tuple(sorted(parameters.items())),
            any_file_name=True,
            notes=tuple(self.notes),
        )

    def _look_at_fields(self) -> None:
        for field, value in self.config.items():
            if field not in _FIELDS:
                self._error((field,), f"unknown field{_suggestion(field, _FIELDS)}")
            elif field in _WITHOUT_EFFECT:
                self.notes.append(f"{field} is without effect: {_WITHOUT_EFFECT[field]}")
            elif field in _REFUSED and value not in _NOTHING:
                self._refuse(field, _REFUSED[field])

    def _base_path(self) -> str:
        path: str = self.config["base_path"]
        return path if "://" in path else os.path.join(os.path.dirname(os.path.abspath(self.where)), path)

    def _batch_size(self) -> int | None:
        value = self.config.get("batch_size")
        if value in (None, "auto", 0, "0"):
            return None
        number = _whole(value)
        if number is None or not 1 <= number <= MAX_ROWS:
            self._error(("batch_size",), f"got {_shown(value)}, want auto or 1 to {MAX_ROWS}")
            return None
        return number

    def _nireq(self) -> dict[str, str]:
        value = self.config.get("nireq")
        if value in (None, "auto", 0, "0"):
            return {}
        number = _whole(value)
        if number is None or number < 1:
            self._error(("nireq",), f"got {_shown(value)}, want at least 1")
            return {}
        if number > MAX_NIREQ:
            self.notes.append(f"nireq: got {number}, {MAX_NIREQ} are used")
        return {"depth": str(min(number, MAX_NIREQ))}

    def _target_device(self) -> dict[str, str]:
        value = self.config.get("target_device", "CPU")
        if not isinstance(value, str):
            self._error(("target_device",), f"got {_shown(value)}, want a text")
            return {}
        return {} if value in ("", "CPU") else {"DEVICE": value}

    def _plugin_config(self) -> dict[str, str]:
        value = self.config.get("plugin_config", {})
        if not isinstance(value, dict):
            self._error(("plugin_config",), f"got {_shown(value)}, want an object")
            return {}
        found = {}
        for name, setting in value.items():
            if isinstance(setting, bool):
                found[name] = "YES" if setting else "NO"
            elif isinstance(setting, (str, int, float)):
                found[name] = str(setting)
            else:
                self._error(("plugin_config", name), f"got {_shown(setting)}, want a text or a number")
        return found

    def _layout(self) -> None:
        value = self.config.get("layout")
        layouts = value.values() if isinstance(value, dict) else [value]
        for layout in layouts:
            if layout in (None, ""):
                continue
            wanted, _, has = str(layout).partition(":")
            if has and wanted != has:
                self._refuse("layout", "inputs are taken as they are")
            else:
                self.notes.append(
                    f"layout: {str(layout)[:64]} is without effect: inputs are taken as they are"
                )

    def _version_policy(self) -> VersionPolicy:
        value = self.config.get("model_version_policy")
        path = ("model_version_policy",)
        if isinstance(value, dict) and len(value) > 1:
            self._error(path, f"got {' and '.join(map(_shown, value))}, want one of them")
            return VersionPolicy()
        match value:
            case None | {"all": {}}:
                return VersionPolicy() if value is None else VersionPolicy(latest=0)
            case {"latest": {"num_versions": int(number)}} if _is_version(number):
                return VersionPolicy(latest=number)
            case {"latest": {}} if not value["latest"]:
                return VersionPolicy()
            case {"specific": {"versions": [*versions]}} if versions and all(
                _is_version(v) for v in versions
            ):
                return VersionPolicy(specific=tuple(sorted(set(versions))))
        self._error(
            path,
            f'got {_shown(value)}, want {{"all": {{}}}}, {{"latest": {{"num_versions": N}}}} or '
            '{"specific": {"versions": [1, 2]}}',
        )
        return VersionPolicy()

    def _refuse(self, field: str, why: str) -> None:
        self._error((field,), f"got {_shown(self.config[field])}, which is not supported: {why}")

    def _error(self, field: Path, text: str) -> None:
        self.errors.append(TextError(self.document.line((*self.path, *field)), f"{spelled(field)}: {text}"))


def _whole(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _is_version(value: Any) -> bool:
    """Or a number of versions."""
    return type(value) is int and 1 <= value < 1 << 62


def _suggestion(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
