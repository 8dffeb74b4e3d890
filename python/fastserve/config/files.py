"""Reads a configuration file (YAML or TOML) into flat values that know their line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple


class FileValue(NamedTuple):
    path: str  # "server.http_port"; a lone "server" when the section is not a mapping
    value: Any
    line: int  # 1-based


class FileError(Exception):
    """`line` 0: not known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read(path: Path) -> list[FileValue]:
    """Raises OSError, FileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(0, f"is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if path.suffix == ".toml":
        return list(_toml(text))
    if path.suffix in {".yaml", ".yml"}:
        return list(_yaml(text))
    raise FileError(0, f"has the ending '{path.suffix}', expected .yaml, .yml or .toml")


def plain_loader(text: str) -> Any:
    """A yaml.SafeLoader for people: PyYAML would read 8:30 as 510, 010 as 8 and 2024-01-01 as a date; none is meant here.
    Raises FileError."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789")
    )
    try:
        return Loader(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise FileError(line, f"has a character that YAML does not allow (U+{error.character:04X})") from None


def _yaml(text: str) -> Iterator[FileValue]:
    import yaml

    loader = plain_loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return
        for section_key, section in _pairs(root, "the file"):
            if not isinstance(section, yaml.MappingNode):
                yield FileValue(
                    section_key, loader.construct_object(section, deep=True), section.start_mark.line + 1
                )
                continue
            for key, node in _pairs(section, section_key):
                yield FileValue(
                    f"{section_key}.{key}", loader.construct_object(node, deep=True), node.start_mark.line + 1
                )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileError(
            mark.line + 1 if mark else 0, f"is not YAML: {error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise FileError(0, f"is not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _pairs(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise FileError(node.start_mark.line + 1, f"{where} has to be a mapping (key: value)")
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise FileError(line, f"a key of {where} is not a text")
        if key.value in seen:
            raise FileError(line, f"'{key.value}' is given twice (first in line {seen[key.value]})")
        seen[key.value] = line
        yield key.value, value


def _toml(text: str) -> Iterator[FileValue]:
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        message = re.sub(r" \(at line .*\)", "", str(error))
        raise FileError(int(found[1]) if found else 0, f"is not TOML: {message}") from None
    for section, content in document.items():
        if not isinstance(content, dict):
            yield FileValue(section, content, _toml_line(text, section, None))
            continue
        for key, value in content.items():
            yield FileValue(f"{section}.{key}", value, _toml_line(text, section, key))


def _toml_line(text: str, section: str, key: str | None) -> int:
    """tomllib keeps no positions; the file is known to be right, so a scan of tables and keys is enough."""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            table = header[1].strip("\"'")
            if key is None and table == section:
                return number
        elif assigned := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = assigned[1].replace('"', "").replace("'", "")
            if f"{table}.{name}".lstrip(".") in {section, f"{section}.{key}"}:
                return number
    return 0
