"""What was read from a file that lists models, and errors in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.model_config import name_error
from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.place import ListedModel
from fastserve.lifecycle.version_spec import Problem

MAX_LIST_BYTES = 16 << 20


@dataclass(frozen=True)
class Listing:
    models: tuple[ListedModel, ...] = ()
    repositories: tuple[ListedModel, ...] = ()  # base_path: the repository; name: ""
    problems: tuple[Problem, ...] = ()  # of models that cannot be served as the file wants it; the others are
    notes: tuple[str, ...] = ()


def refused(where: str, errors: Iterable[TextError]) -> InvalidArgument:
    """The whole file."""
    ordered = sorted(dict.fromkeys(errors), key=lambda error: error.line)
    return InvalidArgument(
        "; ".join(f"{where}:{e.line}: {e.message}" if e.line else f"{where}: {e.message}" for e in ordered)
    )


def name_errors(models: Iterable[tuple[str, int]], field: str) -> Iterable[TextError]:
    """`models`: name and line of each."""
    seen: dict[str, int] = {}
    for name, line in models:
        if not name:
            yield TextError(line, f"{field} is missing")
        elif name in seen:
            yield TextError(line, f"{field}: '{name[:128]}' is given twice (first in line {seen[name]})")
        elif wrong := name_error(name):
            yield TextError(line, f"{field}: {wrong}")
        seen.setdefault(name, line)
