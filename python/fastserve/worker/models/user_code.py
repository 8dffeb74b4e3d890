"""Opens a user's model.py: whichever form it has. Importing it runs it, with the rights of the worker process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import fastserve.worker.models.pb_utils as pb_utils
from fastserve import errors
from fastserve.worker.models.simple import MARK, SimpleModel
from fastserve.worker.models.triton_model import TritonModel

if TYPE_CHECKING:
    from fastserve.worker.model import Calls, ModelSpec, WorkerModel

_MODULE = "fastserve_user_model"


def open_model(spec: ModelSpec, calls: Calls | None) -> WorkerModel:
    """InvalidArgument when the file has neither form; else what the user's code raises."""
    pb_utils.bind(spec, calls)
    module = _import(spec)
    if hasattr(module, "TritonPythonModel"):
        return TritonModel(module.TritonPythonModel, spec)
    marked = {id(value): value for value in vars(module).values() if MARK in getattr(value, "__dict__", {})}
    if len(marked) == 1:
        return SimpleModel(marked.popitem()[1], spec)
    raise errors.InvalidArgument(
        f"model.py: got {len(marked) or 'no'} models, want one class TritonPythonModel, "
        "or one function or class with @fastserve.worker.models.model(...)"
    )


def _import(spec: ModelSpec) -> ModuleType:
    """As Triton: what lies beside model.py can be imported."""
    name = str(spec.config.get("default_model_filename") or "model.py")
    path = Path(spec.folder) / name
    if not path.is_file():
        raise errors.InvalidArgument(f"the version folder has no {name}")
    sys.dont_write_bytecode = True  # nothing is written into a repository
    sys.modules["triton_python_backend_utils"] = pb_utils
    for folder in (spec.repository, spec.folder):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    found = importlib.util.spec_from_file_location(_MODULE, path)
    if found is None or found.loader is None:
        raise errors.InvalidArgument(f"default_model_filename: got '{name}', want a .py file")
    module = importlib.util.module_from_spec(found)
    sys.modules[_MODULE] = module  # dataclasses and pickle look it up
    found.loader.exec_module(module)
    return module
