"""The process's CPU budget and the measurements at load, as `fastserve serve` is told to have them."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fastserve import _core, config

log = logging.getLogger("fastserve.server")

AUTO = "auto"
NONE = "none"


def apply(cpu: config.Cpu) -> None:
    """Before the first model is loaded. A folder that cannot be written to costs a log line, not the start."""
    _core.limit_cpu_threads(cpu.threads)
    if 0 < _core.cpu_threads() < cpu.threads:
        log.warning("--cpu-threads %d: this process may use %d CPUs only", cpu.threads, _core.cpu_threads())
    if not _arenas_are_set(os.environ):
        _core.limit_malloc_arenas(max(2, _core.cpu_threads()))
    _core.set_tuning(at_load=cpu.tune == "load", cache_directory=_cache_folder(cpu.tune_cache))


def _arenas_are_set(environment: Mapping[str, str]) -> bool:
    """Whoever started the process said how many arenas malloc may have (mallopt(3), glibc's tunables)."""
    return "MALLOC_ARENA_MAX" in environment or "glibc.malloc.arena_max" in environment.get(
        "GLIBC_TUNABLES", ""
    )


def _cache_folder(given: str) -> str:
    """Empty when nothing is to be kept, or can be."""
    if given in ("", NONE):
        return ""
    folder = _users_cache_folder() if given == AUTO else Path(given)
    if folder is None:
        log.info("measured shapes are not kept: this user has no home; name a folder with --tune-cache")
        return ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        level = logging.INFO if given == AUTO else logging.WARNING
        log.log(
            level,
            "measured shapes are not kept: cannot write to %s: %s",
            folder,
            os.strerror(error.errno or 0),
        )
        return ""
    return os.fspath(folder.absolute())


def _users_cache_folder() -> Path | None:
    """By the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "fastserve" / "tune"
    try:
        return Path.home() / ".cache" / "fastserve" / "tune"
    except RuntimeError:
        return None
