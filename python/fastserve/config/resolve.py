"""Fills the tree: defaults < file < environment < flags. Runs once, before anything else starts."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fastserve.config import files
from fastserve.config.tree import ENV_PREFIX, Config, Option, options, sections


class ConfigError(ValueError):
    """One line that names the key, where it was given and what was expected."""


class Source(NamedTuple):
    kind: str  # default, file, environment, flag
    where: str  # "", "fastserve.yaml:12", "FASTSERVE_SERVER_HTTP_PORT", "--http-port"

    def __str__(self) -> str:
        return self.where or self.kind


class Flag(NamedTuple):
    """A value of the command line and the spelling that was used."""

    spelling: str
    value: str | list[str]


@dataclass(frozen=True)
class Setting:
    option: Option
    value: Any
    source: Source


@dataclass(frozen=True)
class Resolved:
    config: Config
    settings: Mapping[str, Setting]  # by path, in the order of the tree


_DEFAULT = Source("default", "")
# Kubernetes puts these into every pod beside a Service named "fastserve..."; they are not meant for us.
_SERVICE_LINK = re.compile(
    rf"{ENV_PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ONLY_PATHS = re.compile(os.pathsep)
_PATHS = re.compile(
    rf"{os.pathsep}(?!//|[0-9]+(?:[/:]|$))"
)  # not the colons of s3://bucket and http://host:80/
_UNITS = {"": 1, "B": 1} | {
    f"{letter}{ending}": base**power
    for power, letter in enumerate("KMGT", 1)
    for ending, base in (("", 1024), ("IB", 1024), ("B", 1000))
}


def resolve(
    *,
    flags: Mapping[str, Flag] | None = None,  # by path
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Raises ConfigError."""
    settings = {path: Setting(option, option.default, _DEFAULT) for path, option in options().items()}
    layers: list[Iterable[tuple[str, Any, Source]]] = []
    if file is not None:
        layers.append(_from_file(file))
    layers.append(_from_environment(environ or {}))
    layers.append((path, flag.value, Source("flag", flag.spelling)) for path, flag in (flags or {}).items())
    for layer in layers:
        for path, raw, source in layer:
            option = settings[path].option
            settings[path] = Setting(option, _checked(option, raw, source), source)
    parts = {
        section: cls(**{o.name: settings[o.path].value for o in options().values() if o.section == section})
        for section, cls in sections().items()
    }
    return Resolved(Config(**parts), settings)


def _from_file(path: Path) -> Iterator[tuple[str, Any, Source]]:
    try:
        values = files.read(path)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror or error}") from None
    except files.FileError as error:
        raise ConfigError(f"{path}:{error.line}: {error}" if error.line else f"{path} {error}") from None
    for key, value, line in values:
        where = f"{path}:{line}" if line else str(path)
        if key in options():
            yield key, value, Source("file", where)
        elif key in sections():
            raise ConfigError(f"{where}: {key}: got {_shown(value)}, expected a section with keys of its own")
        else:
            raise ConfigError(f"{where}: unknown key '{key}'{_suggestion(key, options())}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, Source]]:
    by_env = {option.env: path for path, option in options().items()}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENV_PREFIX):
            continue
        if name in by_env:
            yield by_env[name], value, Source("environment", name)
        elif not (_SERVICE_LINK.fullmatch(name) or re.match(r"(tcp|udp|sctp)://", value)):
            raise ConfigError(f"unknown environment variable {name}{_suggestion(name, by_env)}")


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _checked(option: Option, raw: Any, source: Source) -> Any:
    try:
        value = _adapter(option).validate_python(_prepared(option, raw, source))
    except (ValidationError, ValueError, TypeError):
        raise ConfigError(f"{source}: {option.path}: got {_shown(raw)}, expected {option.expected}") from None
    if option.type == tuple[Path | str, ...]:
        value = tuple(item if "://" in str(item) else Path(item) for item in value)
    if value in option.about.not_yet:
        raise ConfigError(
            f"{source}: {option.path}: '{value}' is not supported yet, expected {option.expected}"
        )
    return value


def _adapter(option: Option) -> TypeAdapter[Any]:
    bounds = Field(ge=option.about.low, le=option.about.high) if option.about.low is not None else Field()
    config = ConfigDict(allow_inf_nan=False)
    annotated: Any = Annotated[option.type, bounds]
    return TypeAdapter(annotated, config=config)


def _prepared(option: Option, raw: Any, source: Source) -> Any:
    """What the source can only spell as text, as the value that it means."""
    if isinstance(raw, bool) != option.is_flag and not isinstance(raw, str):
        raise TypeError("a truth value where none is meant, or the other way round")
    if option.about.is_bytes and isinstance(raw, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", raw)
        if not found:
            raise ValueError(raw)
        return int(float(found[1]) * _UNITS[found[2].upper()]) if found[2].upper() in _UNITS else raw
    if option.is_list and isinstance(raw, str):
        if source.kind != "environment":
            return [raw]
        if option.type == tuple[Path | str, ...]:
            return [part for part in (_PATHS if "://" in raw else _ONLY_PATHS).split(raw) if part]
        return [part for part in raw.split(option.about.separator) if part]
    if option.choices and isinstance(raw, float):  # YAML and TOML read a version number as one
        return str(raw)
    if raw == "" and type(None) in getattr(option.type, "__args__", ()):
        return None
    return raw


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_plain(value: Any) -> Any:
    """A value of the tree as JSON has it."""
    if isinstance(value, tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
