"""How worker processes are started: told to an engine once, by whoever makes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fastserve import _core

KINDS = ("python", "onnxruntime", "pytorch")

REFUSAL = (
    'backend: got "python", which is off: such a model is code that runs with the rights of the server. '
    "Start the server with --allow-python-models (of an engine in a program: allow_python_models=True) "
    "if you trust whoever writes to the model repository"
)


def register_workers(core: _core.Engine, *, allow_python_models: bool = False) -> None:
    """Again: later loads go by the last word."""
    refusals = dict.fromkeys(KINDS, "")
    if not allow_python_models:
        refusals["python"] = REFUSAL
    core.use_workers(refusals, command(), environment())


def command() -> list[str]:
    """-P: the server's working directory is no place to import from."""
    return [sys.executable or "python3", "-P", "-m", "fastserve.worker"]


def environment() -> dict[str, str]:
    """What is set in a worker beside the server's own environment. It imports the same fastserve."""
    paths = [os.fspath(Path(os.path.abspath(__file__)).parents[2])]
    given = os.environ.get("PYTHONPATH", "")
    paths += [path for path in given.split(os.pathsep) if path and path not in paths]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
