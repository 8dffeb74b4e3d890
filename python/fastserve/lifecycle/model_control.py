"""The only door to the reconciler: what start, poll and reload found, what clients load and unload, and the index.

    control = ModelControl(reconciler, Repositories((Path("models"),)), explicit=True)
    await control.apply(scan.models)                            # what start, poll, reload found
    await control.load("digits")      # ready now; or NotFound, InvalidArgument, Unavailable, Aborted
    await control.load("digits", Override('{"max_batch_size": 4}'))
    await control.unload("digits")

A load reads the model's folder again and makes the reconciler want what is there: a version whose configuration or files
have changed is loaded beside the old one and takes its place when it is ready and warm; one that has not changed is left
alone. Where anything fails, what served goes on serving. A load may bring its own configuration and files (load_override.py):
they hold until the next load or unload of the model. turns.py has the order of operations.

Runs on the event loop's thread; folders are read on other threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fastserve.errors import FastserveError, Internal, InvalidArgument, NotFound, Unavailable
from fastserve.lifecycle.light_start import LightStart, whole
from fastserve.lifecycle.load_override import MAX_FILES, Override, check_override
from fastserve.lifecycle.model_folder import FoundModel, Held
from fastserve.lifecycle.place import Place, in_repository
from fastserve.lifecycle.policy import Manner
from fastserve.lifecycle.reconciler import ModelState, Reconciler
from fastserve.lifecycle.repository import Repositories
from fastserve.lifecycle.request_files import RequestFiles
from fastserve.lifecycle.settled_scan import SettledScan
from fastserve.lifecycle.turns import CLOSED, Turns
from fastserve.lifecycle.version_spec import VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

MAX_OPERATIONS = 256  # loads and unloads that run or wait, of all clients together

# Code, not data: it comes from the repository, whose owner the operator trusts, and from nowhere else.
CODE_BACKENDS = {"python"}

_NOT_ALLOWED = (
    "explicit model load / unload is not allowed if polling is enabled or models are loaded at start only: "
    "start the server with --model-control-mode explicit"
)

Reasons = dict[int | None, str]  # version (None: the whole model) -> why it cannot be served


class Labels(Protocol):
    """The part of VersionLabels that is used here."""

    def configured(self, model: str, labels: Any) -> None:
        """`labels` as FoundModel.labels has them; replaces what the configuration said before."""


class Saved(Protocol):
    """The part of SavedState that is used here."""

    async def loaded(self, model: str, config: str | None, *, from_files: bool) -> None: ...
    async def unloaded(self, model: str) -> None: ...


class ModelControl:
    def __init__(
        self,
        reconciler: Reconciler,
        repositories: Repositories,
        *,
        explicit: bool,
        max_operations: int = MAX_OPERATIONS,
        labels: Labels | None = None,
        saved: Saved | None = None,
        files: RequestFiles | None = None,
        max_files: int = MAX_FILES,
        light: LightStart | None = None,
        settled: SettledScan | None = None,
    ) -> None:
        """`files`: where the files of requests are kept; `max_files`: of one load. `settled`: how a reload looks."""
        self._reconciler = reconciler
        self._repositories = repositories
        self._settled = settled or SettledScan(repositories)
        self._explicit = explicit
        self._labels = labels
        self._saved = saved
        self._light = light
        self._files = files or RequestFiles()
        self._max_files = max_files
        self._turns = Turns(max_operations)
        self._overrides: dict[
            str, Override
        ] = {}  # that the last load of a model brought; without the files' content
        self.pinned: set[str] = set()  # models that are never unloaded to make room
        self._unloaded: dict[str, set[int]] = {}  # by the last operation on the model
        self._waiting: dict[tuple[str, int], str] = {}  # versions that are still being written, and why

    @property
    def refused(self) -> int:
        """Operations beyond max_operations."""
        return self._turns.refused

    # --- from the repositories

    async def apply(
        self, models: Iterable[FoundModel], gone: Collection[str] = (), *, again: bool = False
    ) -> None:
        """Has the reconciler want what start, poll or reload found, each model in its turn: where an operation of a client
        runs, after it. `gone`: models that are not wanted any more. `again`: what failed before is tried again now, also
        where nothing has changed. Returns without waiting for loads or for turns."""
        found = {model.name: model for model in models}
        for name, model in found.items():
            self._turns.change(name, lambda model=model: self._adopt(model, again))  # type: ignore[misc]
        for name in gone:
            if name not in found:
                self._turns.change(name, lambda name=name: self._drop(name))  # type: ignore[misc]

    async def reload(self) -> bool:
        """Scans the repositories again and applies what is there now and not being written (settled_scan.py), as `apply` does:
        SIGHUP, `fastserve reload`. In mode explicit only models that are loaded are looked at, and none is unloaded. Whether
        anything is different. Raises what Repositories.scan raises; then nothing has changed."""
        states = self._reconciler.model_states()
        known = {s.model for s in states if s.state != "UNLOADED"}
        names = known if self._explicit else None
        served = {model: dict(self._reconciler.wanted(model)) for model in known}
        scan = await asyncio.to_thread(self._settled.scan, served, names)
        found = {model.name for model in scan.models} | scan.kept
        models = [
            await self._overridden(model, held=scan.held.get(model.name))
            for model in scan.models
            if not self._has_files(model.name)
        ]
        gone = set() if self._explicit else known - found
        wanted = {model.name: dict(self._reconciler.wanted(model.name)) for model in models}
        await self.apply(models, gone, again=True)
        self._waiting |= scan.waiting
        return bool(gone) or any(self._reconciler.wanted(name) != before for name, before in wanted.items())

    async def start(self, models: Iterable[FoundModel], configs: Mapping[str, str]) -> None:
        """As `apply`, for the first time. `configs`: JSON that models were loaded with before the restart."""
        if self._explicit:
            await asyncio.to_thread(self._files.sweep)
        self._overrides |= {model: Override(config) for model, config in configs.items()}
        found = [await self._overridden(model) for model in models]
        if self._light is not None:
            self._light.begin((model.name, model.versions) for model in found)
        await self.apply(found)

    @property
    def has_light(self) -> bool:
        """Whether models of a light start are left (light_start.py)."""
        return self._light is not None and len(self._light) > 0

    def renew_asked(self) -> None:
        """Loads models of a light start again as they are meant, that were asked meanwhile (light_start.py)."""
        for model in self._light.take_asked() if self._light is not None else ():
            self._turns.change(
                model,
                lambda model=model: self._reconciler.set_model(model, whole(self._reconciler.wanted(model))),  # type: ignore[misc]
            )

    # --- by request

    async def load(self, model: str, override: Override | None = None) -> None:
        """Returns when every version that is wanted serves. NotFound: no repository has the model. InvalidArgument: it
        could not be loaded; the text has the reason of each version. ResourceExhausted: too many bytes of files.
        Unavailable: not in this mode, or not now. Aborted: a newer operation on the model took its place."""
        self._check_mode()
        if override is None:
            await self._turns.run(model, "load", lambda: self._load(model), shared=True)
        else:
            check_override(override, self._max_files)
            given = override
            await self._turns.run(model, "load", lambda: self._load_given(model, given), shared=False)

    async def unload(self, model: str) -> None:
        """Returns when its requests are answered and it is gone, also when it was not there."""
        self._check_mode()
        await self._turns.run(model, "unload", lambda: self._unload(model), shared=True)

    async def states(self) -> list[ModelState]:
        """What the reconciler knows, what was unloaded (UNLOADED) and what lies in the repositories and was never loaded
        (state ""); by model, then version."""
        states = {(s.model, s.version): s for s in self._reconciler.model_states()}
        for (model, version), why in self._waiting.items():
            there = states.get((model, version))
            if there is None:
                states[model, version] = ModelState(model, version, "UNLOADED", f"waits: it {why}")
            elif there.state == "READY" and not there.reason:
                said = f"serves on as it was; the new one {why}"
                states[model, version] = replace(there, reason=said)
        for model, versions in self._unloaded.items():
            for version in versions:
                states.setdefault((model, version), ModelState(model, version, "UNLOADED", "unloaded"))
        known = {model for model, _ in states}
        for model in await self._names():
            if model not in known:
                states[model, None] = ModelState(model, None, "")
        return [states[key] for key in sorted(states, key=lambda k: (k[0], k[1] or 0))]

    def set_waiting(self, waiting: Mapping[tuple[str, int], str]) -> None:
        """For `states`: versions that a poll leaves alone for now, of all models, and why ("is not complete: ...")."""
        self._waiting = dict(waiting)

    async def close(self) -> None:
        """Starts nothing more; what is under way ends with the reconciler, which has to be closed beside this."""
        await self._turns.close()

    def remove_files(self) -> None:
        """The files of requests; once nothing is loaded any more. Blocking."""
        self._files.close()

    # --- the operations

    def _check_mode(self) -> None:
        if not self._explicit:
            raise Unavailable(_NOT_ALLOWED)

    async def _load(self, model: str) -> None:
        found = await self._found(model)
        failed = await self._wanted_and_settled(found)
        if failed:
            raise _load_failed(model, failed)
        self._overrides.pop(model, None)
        await self._remove_unused_files(model)
        if self._saved is not None:
            await self._saved.loaded(model, None, from_files=False)

    async def _load_given(self, model: str, override: Override) -> None:
        """All or nothing: where one version fails, everything is as it was before. What cannot even be tried changes nothing."""
        before = dict(self._reconciler.wanted(model))
        serving = self._serving(model)
        try:
            found = await self._given(model, override)
            if wrong := _reasons(found):
                raise _load_failed(model, wrong)
            if failed := await self._wanted_and_settled(found):
                await self._put_back(model, before, serving, failed)
                raise _load_failed(model, failed)
        finally:
            await self._remove_unused_files(model)
        self._overrides[model] = Override(override.config, dict.fromkeys(override.files, b""))
        if self._saved is not None:
            await self._saved.loaded(model, override.config, from_files=bool(override.files))

    async def _unload(self, model: str) -> None:
        before = self._serving(model)
        self._nothing_waits(model)
        self._reconciler.set_model(model, {})
        await self._reconciler.settle_model(model)
        left = self._serving(model)
        self._unloaded[model] = before - left
        self._overrides.pop(model, None)
        await self._remove_unused_files(model)
        if left:
            numbers = ",".join(map(str, sorted(left)))
            raise Internal(f"failed to unload '{model}', versions that are still available: {numbers}")
        if self._saved is not None:
            await self._saved.unloaded(model)

    # --- their parts

    async def _wanted_and_settled(self, found: FoundModel) -> Reasons:
        """What failed, once everything that was found is wanted and was tried."""
        model, reasons = found.name, _reasons(found)
        before = self._serving(model)
        self._want(found, reasons, before)
        await self._reconciler.settle_model(model)
        self._unloaded[model] = before - self._serving(model)
        if self._reconciler.closed:
            raise Unavailable(CLOSED)
        self._keep_serving(model, reasons)
        failed: Reasons = dict(reasons)
        for version, text in self._reconciler.failed(model).items():
            failed[version] = text
        return failed

    async def _put_back(
        self, model: str, before: Mapping[int, VersionSpec], serving: set[int], failed: Reasons
    ) -> None:
        failures = [
            ModelState(model, version, "FAILED", text)
            for version, text in failed.items()
            if version not in serving and not (version is None and serving)
        ]
        self._reconciler.set_model(model, before, failures)
        await self._reconciler.settle_model(model)
        self._keep_serving(model, failed)

    def _adopt(self, found: FoundModel, again: bool) -> None:
        """A newer form of a model; nobody waits for it."""
        reasons = _reasons(found)
        self._want(found, reasons, self._serving(found.name), again=again)
        self._keep_serving(found.name, reasons)
        self._unloaded.pop(found.name, None)

    def _nothing_waits(self, model: str) -> None:
        self._waiting = {key: why for key, why in self._waiting.items() if key[0] != model}

    def _drop(self, model: str) -> None:
        self._nothing_waits(model)
        self._unloaded[model] = self._serving(model)
        self._reconciler.set_model(model, {})
        if self._labels is not None:
            self._labels.configured(model, ())

    def _want(
        self, found: FoundModel, reasons: Mapping[int | None, str], serving: set[int], *, again: bool = True
    ) -> None:
        """Has the reconciler want what was found; what is broken now and serves is kept as it is."""
        wanted = self._reconciler.wanted(found.name)
        kept = {v: spec for v, spec in wanted.items() if v in reasons or not found.versions}
        failures = [
            ModelState(found.name, version, "FAILED", text)
            for version, text in reasons.items()
            if version not in serving and not (version is None and serving)
        ]
        self._nothing_waits(found.name)
        self._waiting |= {(found.name, version): why for version, why in found.waiting.items()}
        (self.pinned.add if found.pinned else self.pinned.discard)(found.name)
        light = self._light
        versions = found.versions if light is None else light.applied(found.name, found.versions)
        manner = (
            Manner(resource_preserving=True) if getattr(found, "resource_preserving", False) else Manner()
        )
        self._reconciler.set_model(found.name, {**kept, **versions}, failures, manner=manner, again=again)
        if self._labels is not None and None not in reasons:
            self._labels.configured(found.name, found.labels)

    def _keep_serving(self, model: str, reasons: Mapping[int | None, str]) -> None:
        for version in self._serving(model) if reasons else ():
            if why := reasons.get(version) or reasons.get(None):
                self._reconciler.keep_serving(model, version, why)

    def _serving(self, model: str) -> set[int]:
        return self._reconciler.serving(model)

    # --- folders

    async def _found(self, model: str) -> FoundModel:
        try:
            scan = await asyncio.to_thread(self._repositories.scan, {model})
        except FastserveError as error:  # a repository itself: not the client's fault
            logger.error("%s: %s", model, error, extra={"model": model})
            raise Unavailable(f"failed to load '{model}', the model repository cannot be read") from None
        if not scan.models:
            raise NotFound(f"failed to load '{model}', failed to poll from model repository")
        return scan.models[0]

    async def _given(self, model: str, override: Override) -> FoundModel:
        """The model as the request has it: a folder of its files, or the repository's with its configuration."""
        if override.files:
            root = await asyncio.to_thread(self._files.store, model, override.files)
            found = await self._read(in_repository(root, model), override.config)
        else:
            found = await self._overridden(await self._found(model), override)
        backends = {spec.backend for spec in found.versions.values()} if override.files else set()
        if code := backends & CODE_BACKENDS:
            raise InvalidArgument(
                f"load parameter 'config': backend: got '{min(code)}', whose models are code: they are loaded from the model "
                "repository alone, not from files of a request"
            )
        return found

    async def _overridden(
        self, found: FoundModel, override: Override | None = None, held: Held | None = None
    ) -> FoundModel:
        """With the configuration of a request; without `override` with that of the last load, if it brought one."""
        override = override or self._overrides.get(found.name)
        if override is None or found.place is None:
            return found
        return await self._read(found.place, override.config, held)

    async def _read(self, place: Place, config: str, held: Held | None = None) -> FoundModel:
        return await asyncio.to_thread(self._repositories.read, place, config, held)

    def _has_files(self, model: str) -> bool:
        override = self._overrides.get(model)
        return override is not None and bool(override.files)

    async def _remove_unused_files(self, model: str) -> None:
        if not self._files.roots(model):
            return
        specs = [*self._reconciler.wanted(model).values()]
        specs += [s for v in self._serving(model) if (s := self._reconciler.spec(model, v)) is not None]
        await asyncio.to_thread(self._files.keep, model, {spec.path for spec in specs})

    async def _names(self) -> list[str]:
        try:
            return await asyncio.to_thread(self._repositories.names)
        except FastserveError as error:
            logger.warning("the index has loaded models alone: %s", error)
            return []


def _reasons(found: FoundModel) -> Reasons:
    """Why versions (None: the whole model) cannot even be tried."""
    reasons: Reasons = {}
    for problem in found.problems:
        said = reasons.get(problem.version)
        reasons[problem.version] = f"{said}; {problem}" if said else str(problem)
    return reasons


def _load_failed(model: str, reasons: Mapping[int | None, str]) -> InvalidArgument:
    joined = " ".join(
        f"{text};" if version is None else f"version {version} is at UNAVAILABLE state: {text};"
        for version, text in sorted(reasons.items(), key=lambda item: item[0] or 0)
    )
    return InvalidArgument(f"load failed for model '{model}': {joined}")


def _place(found: FoundModel) -> Place:
    return found.place or in_repository(found.repository, found.name)
