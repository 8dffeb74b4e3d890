"""Which versions leave the cache. `choose` is pure; `sweep` looks and removes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fastserve.lifecycle.remote.cache import DATA, LOCK, MODELS, PARTIAL, Cache, remove_tree

logger = logging.getLogger("fastserve.remote")

PARTIAL_KEEP_S = 7 * 86_400.0  # of a download that nobody went on with
JUST_NOW_S = 60.0  # what was installed just now is about to be shown
_LEFT_OVER = (".new-", ".link-", ".gone-")


@dataclass(frozen=True)
class Kept:
    """A version's folder in the cache."""

    path: Path
    bytes: int
    last_used: float  # seconds since 1970
    in_use: bool  # a living process may read it
    shown: bool  # of the newest listing


def choose(
    entries: Iterable[Kept], now: float, keep_s: float, limit_bytes: int, coming_bytes: int = 0
) -> list[Kept]:
    """What is removed: not shown, not in use, and old; and beyond `limit_bytes` (0: no limit) whatever is not in use, least
    recently used first, what is not shown before what is. `coming_bytes`: room that is needed."""
    everything = list(entries)
    free = [entry for entry in everything if not entry.in_use]
    removed = [entry for entry in free if not entry.shown and now - entry.last_used >= keep_s]
    total = sum(entry.bytes for entry in everything) - sum(entry.bytes for entry in removed) + coming_bytes
    rest = sorted((e for e in free if e not in removed), key=lambda e: (e.shown, e.last_used, str(e.path)))
    for entry in rest:
        if limit_bytes == 0 or total <= limit_bytes:
            break
        removed.append(entry)
        total -= entry.bytes
    return removed


def sweep(
    cache_dir: Path, mine: Cache, now: float, keep_s: float, limit_bytes: int, coming_bytes: int = 0
) -> int:
    """Over every repository in `cache_dir`; those that another process changes right now are left for the next time. `mine` is
    locked by the caller. Returns the bytes that stay."""
    with contextlib.ExitStack() as locks:
        caches = [mine]
        for folder in sorted(cache_dir.iterdir()):
            if folder != mine.root and folder.is_dir() and (folder / LOCK).exists():
                other = Cache(folder)
                if locks.enter_context(other.locked(wait=False)):
                    caches.append(other)
        entries = [(cache, entry) for cache in caches for entry in _kept(cache, now)]
        removed = choose((entry for _, entry in entries), now, keep_s, limit_bytes, coming_bytes)
        for cache, entry in entries:
            if entry in removed:
                _remove(cache, entry)
        _remove_left_overs(mine, now, keep_s)
        return sum(entry.bytes for _, entry in entries) - sum(entry.bytes for entry in removed)


def _kept(cache: Cache, now: float) -> Iterable[Kept]:
    used, alive = cache.used()
    shown = {f"{model}/{folder}" for model in cache.current() for folder in cache.linked(model).values()}
    for model in _folders(cache.root / DATA):
        for folder in _folders(model):
            name = f"{model.name}/{folder.name}"
            size = sum(
                os.lstat(os.path.join(at, f)).st_size for at, _, files in os.walk(folder) for f in files
            )
            # A process that lives may go on to load what is shown, whether it said so already or not.
            last_used = folder.stat().st_mtime
            in_use = name in used or (alive and name in shown) or now - last_used < JUST_NOW_S
            yield Kept(folder, size, last_used, in_use, name in shown)


def _remove(cache: Cache, entry: Kept) -> None:
    model = entry.path.parent.name
    if entry.shown:
        cache.hide(model)
    logger.info("%s of %s leaves the cache (%.1f MB)", entry.path.name, model, entry.bytes / 1e6)
    remove_tree(entry.path)


def _remove_left_overs(cache: Cache, now: float, keep_s: float) -> None:
    """Of processes that ended in the middle of something, and what links led to before."""
    places = [
        cache.root,
        *_folders(cache.root / MODELS),
        *_folders(cache.root / DATA),
        *_folders(cache.root / PARTIAL),
    ]
    for place in places:
        for path in place.iterdir():
            if path.name.startswith(_LEFT_OVER):
                path.unlink() if path.is_symlink() else remove_tree(path)
    current = set(cache.current().values())
    for model in _folders(cache.root / MODELS):
        for folder in _folders(model):
            if folder not in current and now - folder.stat().st_mtime >= keep_s:
                remove_tree(folder)
    for model in _folders(cache.root / PARTIAL):
        for folder in _folders(model):
            if now - folder.stat().st_mtime >= PARTIAL_KEEP_S:
                remove_tree(folder)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(_LEFT_OVER)]
