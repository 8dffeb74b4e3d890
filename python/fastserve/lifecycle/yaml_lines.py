"""Safe YAML with positions: plain data, and in which line each key and item stands.

One spelling for one thing: no anchors, aliases or tags, no duplicate keys, no dates; 8:30 is a text.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from fastserve.config.files import FileError, plain_loader

Path = tuple[str | int, ...]  # ("scheduling", "queue", "timeout_ms"), ("inputs", 0, "dims")

MAX_DEPTH = 32

_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}


class YamlError(Exception):
    """`line` 0: not known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class YamlDocument(NamedTuple):
    data: Any  # mappings as dict, lists as tuple
    lines: dict[Path, int]  # 1-based

    def line(self, path: Path) -> int:
        """Of the value, or of the nearest one around it; 0 when there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read_yaml(text: str, texts: Collection[str] = ()) -> YamlDocument:
    """`texts`: keys of the outermost mapping whose scalars are wanted as they are written: NO, 1.0, 2. Raises YamlError."""
    import yaml

    try:
        loader = plain_loader(text)
    except FileError as error:
        raise YamlError(error.line, str(error)) from None
    try:
        root = loader.get_single_node()
        reader = _Reader(loader, texts)
        data = {} if root is None else reader.value(root, (), False)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = f"is not YAML: {error.problem or error.context}"
        raise YamlError(mark.line + 1 if mark else 0, said) from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(0, f"is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise YamlError(0, "is nested too deeply") from None
    finally:
        loader.dispose()
    return YamlDocument(data, reader.lines)


class _Reader:
    def __init__(self, loader: Any, texts: Collection[str]) -> None:
        self.loader = loader
        self.texts = texts
        self.lines: dict[Path, int] = {}
        self.seen: set[int] = set()  # ids of nodes: an alias is the same node again

    def value(self, node: Any, path: Path, as_text: bool) -> Any:
        import yaml

        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if id(node) in self.seen:
            raise YamlError(line, "aliases (*name) are not supported: write the value out")
        self.seen.add(id(node))
        if len(path) > MAX_DEPTH:
            raise YamlError(line, "is nested too deeply")
        if node.tag not in _TAGS:
            raise YamlError(line, f"the tag {node.tag[:80]} is not supported")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, as_text)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self.value(item, (*path, i), as_text) for i, item in enumerate(node.value))
        return node.value if as_text else self._scalar(node)

    def _scalar(self, node: Any) -> Any:
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError):  # `!!int x`: PyYAML does not look
            kind = node.tag.rpartition(":")[2]
            raise YamlError(node.start_mark.line + 1, f"'{node.value[:60]}' is no {kind}") from None

    def _mapping(self, node: Any, path: Path, as_text: bool) -> dict[Any, Any]:
        import yaml

        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError(line, "a key is not a text or number")
            key = self._scalar(key_node)
            key = key if type(key) is int and not as_text else key_node.value
            if key in found:
                raise YamlError(line, f"'{key}' is given twice (first in line {self.lines[(*path, key)]})")
            self.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key), as_text or (not path and key in self.texts))
        return found
