"""JSON with positions: plain data, and in which line each value stands."""

from __future__ import annotations

import json
import re
from typing import Any

from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.yaml_lines import Path

MAX_DEPTH = 64

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+|\s+', re.DOTALL)


class JsonDocument:
    def __init__(self, data: Any, lines: dict[Path, int]) -> None:
        self.data = data
        self._lines = lines  # 1-based

    def line(self, path: Path) -> int:
        """Of the value, or of the nearest one around it; 0 when there is none."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 0)


class JsonError(Exception):
    def __init__(self, error: TextError) -> None:
        super().__init__(error.message)
        self.error = error


def read_json(text: str) -> JsonDocument:
    """Raises JsonError: no JSON, a key twice in one object, or too deep."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise JsonError(TextError(error.lineno, f"is not JSON: {error.msg}")) from None
    except (RecursionError, ValueError) as error:
        raise JsonError(TextError(0, f"is not JSON: {str(error)[:80]}")) from None
    return JsonDocument(data, _lines(text))


def _lines(text: str) -> dict[Path, int]:
    """Of text that is JSON."""
    lines: dict[Path, int] = {}
    line = 1
    path: list[str | int] = []  # of the value that comes next
    wants_key = False
    for token in _TOKEN.findall(text):
        if token.isspace():
            line += token.count("\n")
            continue
        if token in "}]":
            path.pop()
            wants_key = False
        elif token == ",":
            last = path.pop()
            wants_key = isinstance(last, str)
            path.append(last + 1 if isinstance(last, int) else "")
        elif token == ":":
            wants_key = False
        elif wants_key:
            path[-1] = json.loads(token)
            if tuple(path) in lines:
                raise JsonError(TextError(line, f"'{str(path[-1])[:64]}' is given twice"))
            lines[tuple(path)] = line
        else:
            lines.setdefault(tuple(path), line)
            if token in "{[":
                path.append("" if token == "{" else 0)
                wants_key = token == "{"
                if len(path) > MAX_DEPTH:
                    raise JsonError(TextError(line, "is nested too deeply"))
        line += token.count("\n")
    return lines
