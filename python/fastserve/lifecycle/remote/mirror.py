"""Remote repositories as folders: what a store has is downloaded to a cache, which is scanned like any other repository.

    mirror = Mirror(MirrorSettings(cache_dir=Path("/var/cache/models")))
    mirror.update("s3://bucket/models")            # downloads what changed
    scan(mirror.local("s3://bucket/models"))       # a folder in Triton's layout

Only what the version policy serves is downloaded, and of `names` only where they are given. A version is taken when all of it is
there: as its fastserve-manifest.json says, or without one when it has not changed for `settle_s`. It is shown when its
sizes and checksums are right, and what was shown before stays until then. Blocking; any thread; one update of a repository
at a time, also of several processes that share the cache.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fastserve.errors import CODE_NAMES, FastserveError, NotFound, Unavailable
from fastserve.lifecycle.manifest import MANIFEST_FILE
from fastserve.lifecycle.remote.cache import Cache, make_private
from fastserve.lifecycle.remote.garbage import sweep
from fastserve.lifecycle.remote.http_store import HttpStore
from fastserve.lifecycle.remote.listing import Model, Part, sort_files
from fastserve.lifecycle.remote.model_update import Figures, ModelUpdate, Wanted
from fastserve.lifecycle.remote.settings import MirrorSettings
from fastserve.lifecycle.remote.store import FsspecStore, Store
from fastserve.lifecycle.remote.urls import cache_name, redacted
from fastserve.lifecycle.remote.wanted import wanted_versions
from fastserve.lifecycle.version_spec import Problem

logger = logging.getLogger("fastserve.remote")


@dataclass
class _Mirrored:
    """One repository."""

    url: str
    shown: str  # without secrets
    cache: Cache
    store: Store
    lock: threading.Lock = field(default_factory=threading.Lock)
    problems: dict[str, list[Problem]] = field(default_factory=dict)
    updates: dict[str, ModelUpdate] = field(default_factory=dict)
    last_shown: dict[str, float] = field(default_factory=dict)  # data folder -> when, by `now`
    answered: bool = False  # once, since the start
    unreachable: str = ""


class Mirror:
    def __init__(
        self,
        settings: MirrorSettings | None = None,
        *,
        wanted: Wanted = wanted_versions,
        in_use: Callable[[], Iterable[str]] | None = None,
        make_store: Callable[[str, MirrorSettings], Store] | None = None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """`in_use`: paths of the models that are loaded or will be (VersionSpec.path); asked on the updating thread. Without it
        whatever was shown within `keep_s` counts as used."""
        self.settings = settings or MirrorSettings()
        self.in_use = in_use
        self.figures = Figures()
        self._wanted = wanted
        self._make_store = make_store or _make_store
        self._stopping = threading.Event()
        self._now, self._sleep = now, sleep or self._stopping.wait
        self._lock = threading.Lock()
        self._sweeping = threading.Lock()
        self._mirrored: dict[str, _Mirrored] = {}

    def local(self, url: str) -> Path:
        """Where the repository lies on this machine; there after the first `update`."""
        return self.settings.cache_dir / cache_name(url)

    def update(self, url: str, names: Collection[str] | None = None) -> None:
        """Makes local(url) what the store has; `names`: as far as these models go.

        A store that cannot be read: what is in the cache stays, with a warning in the log. Without such a copy (or with
        `offline_start` off, before the first success): Unavailable, PermissionDenied, NotFound, Unauthenticated. What is wrong
        with one model is in `problems`; raised when `names` asks for it and nothing of it is in the cache."""
        if names is not None and not names:
            return
        if self._stopping.is_set():
            raise Unavailable("remote repositories are not asked any more: the server stops")
        mirrored = self._get(url)
        with mirrored.lock, mirrored.cache.locked():
            self._note_uses(mirrored)
            try:
                with _as_unavailable():
                    self._update(mirrored, names)
            except FastserveError as error:
                self.figures.failed(CODE_NAMES[error.code])
                self._keep(mirrored, names, error)
            else:
                if mirrored.unreachable:
                    logger.info("%s answers again", mirrored.shown)
                mirrored.unreachable, mirrored.answered = "", True
            self._note_uses(mirrored)
            self._sweep(mirrored)

    def names(self, url: str) -> list[str]:
        """The models that the store has; of the cache, when it does not answer."""
        mirrored = self._get(url)
        try:
            return mirrored.store.names()
        except FastserveError as error:
            logger.warning("%s", error)
            return sorted(mirrored.cache.current())

    def problems(self, url: str) -> list[Problem]:
        """What the last updates found wrong with single models and versions."""
        with self._lock:
            mirrored = self._mirrored.get(url)
        return (
            [problem for found in dict(mirrored.problems).values() for problem in found] if mirrored else []
        )

    def unreachable(self, url: str) -> str:
        """Why the cache serves without the store; "": the last update went well."""
        with self._lock:
            mirrored = self._mirrored.get(url)
        return mirrored.unreachable if mirrored else ""

    def stop(self) -> None:
        """Does not block: an update that runs ends soon, with what it has. None after it downloads anything."""
        self._stopping.set()
        with self._lock:
            stores = [mirrored.store for mirrored in self._mirrored.values()]
        for store in stores:
            store.stop()

    def close(self) -> None:
        """Nothing in the cache is in use by this process any more."""
        with self._lock:
            for mirrored in self._mirrored.values():
                mirrored.cache.close()
            self._mirrored.clear()

    # --- one update

    def _get(self, url: str) -> _Mirrored:
        with self._lock:
            if (mirrored := self._mirrored.get(url)) is None:
                store = self._make_store(url, self.settings)
                make_private(self.settings.cache_dir)
                mirrored = _Mirrored(url, redacted(url), Cache(self.local(url)), store)
                self._mirrored[url] = mirrored
            return mirrored

    def _update(self, mirrored: _Mirrored, names: Collection[str] | None) -> None:
        models, unsettled = self._look_twice(mirrored, names)
        cached = mirrored.cache.current()
        if names is None and not models and cached:
            raise Unavailable(f"{mirrored.shown} is empty, and was not before")
        for name in cached if names is None else [name for name in names if name in cached]:
            if name not in models:
                logger.info("%s is not in %s any more", name, mirrored.shown)
                mirrored.cache.hide(name)
        for name in [*mirrored.problems] if names is None else names:
            mirrored.problems.pop(name, None)
        refused = self._update_models(mirrored, models, unsettled)
        if names is not None:
            for name, error in refused.items():
                if name not in mirrored.cache.current():
                    raise error

    def _update_models(
        self, mirrored: _Mirrored, models: Mapping[str, Model], unsettled: set[tuple[str, int]]
    ) -> dict[str, FastserveError]:
        """Returns what is wrong with models as a whole. Unavailable: the store stopped answering."""
        refused: dict[str, FastserveError] = {}
        settings = self.settings
        with (
            ThreadPoolExecutor(settings.parallel, thread_name_prefix="fastserve-download") as pool,
            ThreadPoolExecutor(settings.parallel_models, thread_name_prefix="fastserve-mirror") as updaters,
        ):
            context = ModelUpdate.Context(
                mirrored.store,
                mirrored.cache,
                settings,
                self._wanted,
                self.figures,
                self._now,
                pool,
                unsettled,
                lambda needed: self._sweep(mirrored, needed),
            )
            running = {}
            for name, model in models.items():
                update = mirrored.updates.setdefault(name, ModelUpdate(name))
                running[name] = updaters.submit(update.run, context, model)
            for name, future in running.items():
                try:
                    problems = future.result()
                except Unavailable:  # the others would not fare better
                    updaters.shutdown(wait=False, cancel_futures=True)
                    raise
                except FastserveError as error:
                    problems = [Problem(name, str(error))]
                    refused[name] = error
                if problems:
                    mirrored.problems[name] = problems
        return refused

    def _look_twice(
        self, mirrored: _Mirrored, names: Collection[str] | None
    ) -> tuple[dict[str, Model], set[tuple[str, int]]]:
        """What the store has, and which versions of it have not settled. Looks again when something changed just now."""
        models = self._look(mirrored, names)
        first = {
            (model.name, number): part
            for model in models.values()
            for number, part in model.versions.items()
            if self._is_young(part, mirrored.cache)
        }
        if not first:
            return models, set()
        self._sleep(self.settings.settle_s)
        models = self._look(mirrored, names)
        second = {(m.name, number): part for m in models.values() for number, part in m.versions.items()}
        unsettled = {
            key
            for key, part in second.items()
            if self._is_young(part, mirrored.cache) and first.get(key) != part
        }
        return models, unsettled

    def _is_young(self, part: Part, cache: Cache) -> bool:
        """Not in the cache, and so new that more may be coming; a manifest says what is coming."""
        if part.changed is None or part.file(MANIFEST_FILE) or cache.data(part).is_dir():
            return False
        return self._now() - part.changed < self.settings.settle_s

    def _look(self, mirrored: _Mirrored, names: Collection[str] | None) -> dict[str, Model]:
        files = []
        for folder in ("",) if names is None else [f"{name}/" for name in sorted(names)]:
            try:
                files += mirrored.store.find(folder)
            except NotFound:
                if names is None:
                    raise
        return sort_files(files, names)

    def _keep(self, mirrored: _Mirrored, names: Collection[str] | None, error: FastserveError) -> None:
        """Goes on with what is in the cache, or raises."""
        cached = mirrored.cache.current()
        enough = all(name in cached for name in names) if names is not None else bool(cached)
        if not enough or not (mirrored.answered or self.settings.offline_start):
            raise error
        if mirrored.unreachable != str(error):  # once, not at every poll
            logger.warning("%s; serving what is in the cache", error)
        mirrored.unreachable = str(error)

    # --- the cache

    def _note_uses(self, mirrored: _Mirrored) -> None:
        now, cache = self._now(), mirrored.cache
        shown = {f"{model}/{folder}" for model in cache.current() for folder in cache.linked(model).values()}
        mirrored.last_shown |= dict.fromkeys(shown, now)
        data = cache.root / ".data"
        for name in shown:
            with contextlib.suppress(OSError):
                (data / name).touch()
        used = self._loaded(data)
        if used is None:
            used = {name for name, when in mirrored.last_shown.items() if now - when < self.settings.keep_s}
        cache.use(shown | used)
        mirrored.last_shown = {
            name: when for name, when in mirrored.last_shown.items() if name in shown | used
        }

    def _loaded(self, data: Path) -> set[str] | None:
        """What of a repository's data is loaded; None: nobody says."""
        try:
            paths = (
                [Path(path).resolve() for path in self.in_use() if path] if self.in_use is not None else None
            )
        except (RuntimeError, TimeoutError):  # the server's loop is closed, or late
            paths = None
        if paths is None:
            return None
        real = data.resolve()
        inside = [path.relative_to(real).parts for path in paths if path.is_relative_to(real)]
        return {"/".join(parts[:2]) for parts in inside if len(parts) >= 2}

    def _sweep(self, mirrored: _Mirrored, coming_bytes: int = 0) -> None:
        settings = self.settings
        try:
            with self._sweeping:
                kept = sweep(
                    settings.cache_dir,
                    mirrored.cache,
                    self._now(),
                    settings.keep_s,
                    settings.cache_bytes,
                    coming_bytes,
                )
        except (OSError, FastserveError) as error:
            logger.warning("the cache of %s could not be cleaned: %s", mirrored.shown, error)
            return
        self.figures.cache_bytes = kept
        if settings.cache_bytes and kept + coming_bytes > settings.cache_bytes:
            logger.warning(
                "the cache of remote repositories has %d bytes in use, --repository-cache-bytes is %d",
                kept + coming_bytes,
                settings.cache_bytes,
            )


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    """What the cache's disk says, as an error of ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FastserveError):
            raise
        raise Unavailable(f"the cache of remote repositories: {error}") from None


def _make_store(url: str, settings: MirrorSettings) -> Store:
    made: Mapping[str, type[FsspecStore]] = {"http": HttpStore, "https": HttpStore}
    return made.get(url.partition("://")[0].lower(), FsspecStore)(url, settings.patience)
