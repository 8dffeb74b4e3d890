"""Settings of the cache of remote repositories."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fastserve.lifecycle.remote.store import Patience


def default_cache_dir() -> Path:
    """fastserve/repositories in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastserve" / "repositories"


@dataclass(frozen=True)
class MirrorSettings:
    cache_dir: Path = field(default_factory=default_cache_dir)
    cache_bytes: int = (
        0  # versions that nobody uses go when there are more, least recently used first; 0: no limit
    )
    keep_s: float = 3600.0  # how long a version stays that is not listed any more, and that nobody uses
    offline_start: bool = True  # a complete cached copy serves when the store cannot be reached at start
    max_version_files: int = 10_000
    max_version_bytes: int = 1 << 40
    settle_s: float = (
        2.0  # a version without manifest is taken when its files have been as they are for so long
    )
    parallel: int = 8  # requests for data at the same time
    parallel_models: int = 4
    range_bytes: int = 8 << 20  # of one of them
    patience: Patience = field(default_factory=Patience)
