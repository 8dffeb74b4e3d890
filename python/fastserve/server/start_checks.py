"""What `serve` finds wrong with its settings before a port is opened: one line each that says what to do."""

from __future__ import annotations

import os
from pathlib import Path

from fastserve import config
from fastserve.lifecycle import Repositories
from fastserve.server.listeners import StartError

EVERY_MODEL = "*"


def startup_models(repository: config.Repository, repositories: Repositories) -> list[str] | None:
    """The models that are loaded at start; None: all of them. Raises StartError."""
    wanted = list(repository.load_model)
    if repository.model_control_mode != "explicit":
        if wanted:
            raise StartError("--load-model needs --model-control-mode explicit as well")
        return None
    if EVERY_MODEL in wanted:
        if len(wanted) > 1:
            raise StartError("--load-model '*' loads every model: give it alone")
        return None
    present = repositories.names()
    for name in wanted:
        if name not in present:
            raise StartError(f"--load-model {name[:128]!r}: no model repository has a folder of that name")
    return wanted


def check_tracing(tracing: config.Tracing) -> None:
    """Raises StartError."""
    if tracing.file is None:
        if tracing.level != "OFF":
            raise StartError(f"--trace-level {tracing.level} needs --trace-file as well")
        return
    folder = tracing.file.parent
    if tracing.file.is_dir() or not folder.is_dir() or not _writable(tracing.file, folder):
        raise StartError(f"cannot write traces to {tracing.file}: choose another file with --trace-file")


def _writable(file: Path, folder: Path) -> bool:
    return os.access(folder, os.W_OK) and (not file.exists() or os.access(file, os.W_OK))
