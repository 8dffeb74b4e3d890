"""One model of a store into the cache: its configuration, then the versions that are wanted, then both shown at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fastserve.errors import FastserveError, InvalidArgument, ResourceExhausted
from fastserve.lifecycle.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, Entry, parse_manifest
from fastserve.lifecycle.remote.cache import Cache, remove_tree
from fastserve.lifecycle.remote.download import Corrupt, Progress, download
from fastserve.lifecycle.remote.listing import Model, Part, limit_problem, sort_files, with_manifest
from fastserve.lifecycle.remote.settings import MirrorSettings
from fastserve.lifecycle.remote.store import Store
from fastserve.lifecycle.remote.wanted import CONFIG_FILES
from fastserve.lifecycle.version_spec import Problem
from fastserve.lifecycle.warm_up_files import FOLDER as WARM_UP

logger = logging.getLogger("fastserve.remote")

MAX_CHANGES = 3  # times that a model may change while it is downloaded, before it is left for the next update
FIRST_PAUSE_S, LAST_PAUSE_S = 60.0, 3600.0  # before corrupt content is downloaded once more; doubles


class Wanted(Protocol):
    def __call__(self, model: str, versions: Collection[int], texts: Mapping[str, str], /) -> Collection[int]:
        """Which of `versions` are downloaded; `texts`: the model's configuration files by name."""


@dataclass
class Figures:
    """For metrics; since the start."""

    downloaded_bytes: int = 0
    downloaded_versions: int = 0
    cache_bytes: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # by code

    _lock: threading.Lock = field(default_factory=threading.Lock)

    def failed(self, code: str) -> None:
        with self._lock:
            self.failures[code] = self.failures.get(code, 0) + 1

    def downloaded(self, done_bytes: int, version_bytes: int) -> None:
        with self._lock:
            self.downloaded_bytes += done_bytes
            self.downloaded_versions += 1
            self.cache_bytes += version_bytes


class _Bad(NamedTuple):
    """Content that was wrong."""

    reason: str
    pause_s: float
    retry_at: float


class ModelUpdate:
    """What is remembered of one model between updates."""

    class Context(NamedTuple):
        store: Store
        cache: Cache
        settings: MirrorSettings
        wanted: Wanted
        figures: Figures
        now: Callable[[], float]
        pool: Executor  # for requests of data
        unsettled: Collection[tuple[str, int]]  # versions that changed just now
        make_room: Callable[[int], None]  # bytes

    def __init__(self, name: str) -> None:
        self.name = name
        self._manifests: dict[
            int, tuple[str, dict[str, Entry]]
        ] = {}  # version -> its manifest's mark, and what it says
        self._bad: dict[str, _Bad] = {}  # data folder -> why it was not taken

    def run(self, context: Context, model: Model) -> list[Problem]:
        """Raises Unavailable: the store stopped answering. Everything else that is wrong is returned, or raised where it is
        about the model as a whole; what was shown stays."""
        for _ in range(MAX_CHANGES):
            model, problems, again = self._try(context, model)
            if not again:
                return problems
        raise InvalidArgument(
            f"{self.name} changed {MAX_CHANGES} times while it was downloaded: left for the next update"
        )

    def _try(self, context: Context, model: Model) -> tuple[Model, list[Problem], bool]:
        """The newest listing, what is wrong, and whether everything has to be looked at once more."""
        problems = [Problem(self.name, text) for text in model.problems]
        cache = context.cache
        before = cache.linked(self.name)
        parts = [model.beside]
        if missing := self._missing(context, model.beside):
            self._download(context, missing)
        try:
            numbers = context.wanted(self.name, [*model.versions], self._texts(cache, model.beside))
        except FastserveError as error:  # the scan says so too, of the same file
            logger.warning("%s: no version is downloaded: %s", self.name, error)
            numbers = [n for n in model.versions if str(n) in before]
        failed = False
        for number in sorted(set(numbers) & set(model.versions)):
            try:
                parts.append(self._version(context, model.versions[number]))
            except (InvalidArgument, ResourceExhausted) as error:
                problems.append(Problem(self.name, str(error), f"{self.name}/{number}", version=number))
                context.figures.failed(
                    "INVALID_ARGUMENT" if isinstance(error, InvalidArgument) else "RESOURCE_EXHAUSTED"
                )
                failed = True
        fresh = [part for part in parts if not cache.data(part).is_dir()]
        if fresh:
            listed = sort_files(context.store.find(f"{self.name}/")).get(
                self.name, Model(self.name, Part(self.name, 0))
            )
            if any(not self._is_as_listed(part, listed) for part in fresh):
                return listed, [], True
        for part in fresh:
            self._install(context, part)
        self._show(cache, parts, before if failed else {})
        return model, problems, False

    # --- one version

    def _version(self, context: Context, part: Part) -> Part:
        """Downloaded and verified, not installed. InvalidArgument: it is not complete, or corrupt."""
        part = self._settled(context, self._with_manifest(context, part))
        if wrong := limit_problem(
            part, context.settings.max_version_files, context.settings.max_version_bytes
        ):
            raise ResourceExhausted(wrong)
        if (missing := self._missing(context, part)) is None:
            return part
        bad = self._bad.get(part.folder)
        if bad is not None and context.now() < bad.retry_at:
            raise InvalidArgument(bad.reason)
        limit = context.settings.cache_bytes
        if limit and context.figures.cache_bytes + part.bytes > limit:
            context.make_room(part.bytes)
        started = time.monotonic()
        try:
            progress = self._download(context, missing)
        except Corrupt as error:
            pause = min(LAST_PAUSE_S, bad.pause_s * 2) if bad else FIRST_PAUSE_S
            self._bad[part.folder] = _Bad(str(error), pause, context.now() + pause)
            logger.error("%s: %s; tried again in %.0f s, or when it changes", self.name, error, pause)
            raise
        self._bad.pop(part.folder, None)
        context.figures.downloaded(progress.done_bytes, part.bytes)
        seconds = time.monotonic() - started
        logger.info(
            "downloaded version %d of %s: %.1f MB in %.1f s",
            part.version,
            self.name,
            progress.done_bytes / 1e6,
            seconds,
            extra={"model": self.name, "version": part.version},
        )
        return part

    def _download(self, context: Context, part: Part) -> Progress:
        return download(
            context.store, part, context.cache.partial(part), context.settings.range_bytes, context.pool
        )

    def _with_manifest(self, context: Context, part: Part) -> Part:
        manifest = part.file(MANIFEST_FILE)
        if manifest is None:
            return part
        mark, entries = self._manifests.get(part.version, ("", {}))
        if mark and mark == manifest.mark:
            return with_manifest(part, entries)
        if manifest.size > MAX_MANIFEST_BYTES:
            raise InvalidArgument(
                f"{part.where}{MANIFEST_FILE} has {manifest.size} bytes, at most {MAX_MANIFEST_BYTES} are taken"
            )
        text = context.store.read(part.where + MANIFEST_FILE, 0, manifest.size) if manifest.size else b""
        try:
            entries = parse_manifest(text)
            self._manifests[part.version] = (manifest.mark, entries)
            return with_manifest(part, entries)
        except InvalidArgument as error:
            raise InvalidArgument(f"{part.where}{MANIFEST_FILE}: {error}") from None

    def _settled(self, context: Context, part: Part) -> Part:
        """Without a manifest: what has been as it is for a while."""
        if not part.file(MANIFEST_FILE) and (self.name, part.version) in context.unsettled:
            raise InvalidArgument(
                f"{part.where} changes in the store: it is looked at again at the next update"
            )
        return part

    def _missing(self, context: Context, part: Part) -> Part | None:
        """None: it is in the cache, or has no files."""
        return None if not part.files or context.cache.data(part).is_dir() else part

    def _is_as_listed(self, part: Part, listed: Model) -> bool:
        now = listed.versions.get(part.version) if part.version else listed.beside
        if now is None:
            return False
        marks = {file.name: (file.size, file.mark) for file in now.files}
        same = all(marks.get(file.name) == (file.size, file.mark) for file in part.files)
        return same and (part.file(MANIFEST_FILE) is not None or len(marks) == len(part.files))

    def _install(self, context: Context, part: Part) -> None:
        if part.files:
            context.cache.install(part)
        self._remove_other_partials(context.cache, part)

    def _remove_other_partials(self, cache: Cache, part: Part) -> None:
        """Of content that is not in the store any more."""
        folder = cache.partial(part).parent
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.startswith(f"{part.folder.rpartition('-')[0]}-"):
                remove_tree(path)

    # --- what is shown

    def _texts(self, cache: Cache, beside: Part) -> dict[str, str]:
        texts = {}
        for name in CONFIG_FILES:
            for folder in (cache.data(beside), cache.partial(beside)):
                if beside.file(name) and (folder / name).is_file():
                    texts[name] = (folder / name).read_text("utf-8", "replace")
                    break
        return texts

    def _show(self, cache: Cache, parts: list[Part], before: Mapping[str, str]) -> None:
        """`before`: versions that stay, because a newer one could not be had."""
        links = {name: folder for name, folder in before.items() if name.isdigit()}
        for part in parts:
            if part.version:
                links[str(part.version)] = part.folder
            else:
                tops = {file.name.partition("/")[0] for file in part.files}
                links |= {top: f"{part.folder}/{top}" for top in tops if top == WARM_UP or not top.isdigit()}
        if links and cache.show(self.name, links):
            logger.info(
                "%s: the cache has versions %s", self.name, ", ".join(n for n in links if n.isdigit()) or "-"
            )
