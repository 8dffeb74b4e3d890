"""Prints what pyproject.toml asks for, one a line: build requirements, dependencies, named extras.

    python tools/requirements.py server dev

tools/lib.sh installs them and builds without isolation; the list itself stays in pyproject.toml alone.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def expand(extra: str, project: dict[str, Any]) -> list[str]:
    """The requirements of one extra, with `name[a,b]` of the project itself replaced by those extras."""
    found: list[str] = []
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[(.+)\]", requirement)
        if own:
            for inner in own[1].split(","):
                found += expand(inner.strip(), project)
        else:
            found.append(requirement)
    return found


def requirements(extras: list[str], pyproject: Path = PYPROJECT) -> list[str]:
    tables = tomllib.loads(pyproject.read_text())
    project = tables["project"]
    found = list(tables["build-system"]["requires"]) + list(project["dependencies"])
    for extra in extras:
        if extra not in project["optional-dependencies"]:
            raise SystemExit(
                f"no extra {extra!r} in {pyproject}: it has {sorted(project['optional-dependencies'])}"
            )
        found += expand(extra, project)
    return sorted(set(found))


if __name__ == "__main__":
    print("\n".join(requirements(sys.argv[1:])))
