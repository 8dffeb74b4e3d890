"""Makes the engine hold the wanted set: asks the policy what to do, has loader threads do it, and asks again.

Everything here runs on the event loop's thread; the engine's blocking calls run on loader threads. Unloads have
threads of their own, so that a version that drains for long does not keep others from loading.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from fastserve import _core, errors
from fastserve.lifecycle import backend_choice
from fastserve.lifecycle.policy import Actual, Key, Wanted, plan
from fastserve.lifecycle.version_spec import VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

UNLOADER_THREADS = 4  # they wait for requests that are still running

Progress = Callable[[str, int, float, str], None]  # model, version, 0..1, what is being done


class Core(Protocol):
    """The part of _core.Engine that is used here."""

    def load(self, spec: _core.LoadSpec, progress: Callable[[float, str], None] | None = None) -> None: ...
    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None: ...
    def status(self) -> list[_core.VersionStatus]: ...


@dataclass(frozen=True)
class ModelState:
    """A model's version as users see it. `version` None: the model as a whole did not get as far as the engine."""

    model: str
    version: int | None
    state: str  # NEW LOADING WARMING READY DRAINING UNLOADED FAILED
    reason: str = ""  # of FAILED; else what is going on ("compiling")
    progress: float = 0.0  # 0..1 while loading


@dataclass
class _Attempt:
    """The last load of a version: of what, and how it ended ("" = well, or not yet)."""

    spec: VersionSpec | None  # None: is to be tried again
    error: str = ""
    serving: VersionSpec | None = None  # what READY means: the last spec that loaded


class Reconciler:
    """`set_wanted` says what should be served; `settle` waits until it is, as far as it can be."""

    def __init__(
        self,
        core: Core,
        *,
        loader_threads: int = 2,
        drain_seconds: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        """`drain_seconds`: how long a version that is unloaded may answer what waits in its queue (None: as long as
        it takes). `on_progress` is called on the event loop's thread."""
        self._core = core
        self._drain_seconds = drain_seconds
        self._on_progress = on_progress
        self._wanted: Wanted = {}
        self._failures: tuple[ModelState, ...] = ()
        self._attempts: dict[Key, _Attempt] = {}
        self._stuck: set[Key] = set()  # unload failed: not tried again until the wanted set changes
        self._in_flight: dict[Key, asyncio.Task[None]] = {}
        self._doing: dict[Key, ModelState] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._changed = asyncio.Event()  # set, and replaced, whenever something in flight ended
        self._closed = False
        self._loaders = ThreadPoolExecutor(loader_threads, thread_name_prefix="fastserve-loader")
        self._unloaders = ThreadPoolExecutor(UNLOADER_THREADS, thread_name_prefix="fastserve-unloader")

    # --- wanted

    async def set_wanted(self, wanted: Wanted, failures: Iterable[ModelState] = ()) -> None:
        """Replaces the wanted set and starts what that asks for. `failures`: what did not get as far as a spec."""
        self._wanted = {model: dict(versions) for model, versions in wanted.items()}
        self._failures = tuple(failures)
        self._stuck.clear()
        _log_failures(self._failures)
        self._step()

    def set_model(
        self, model: str, versions: Mapping[int, VersionSpec], failures: Iterable[ModelState] = ()
    ) -> None:
        """As set_wanted, for one model; `versions` empty: it goes. What failed before is tried again."""
        others = {name: wanted for name, wanted in self._wanted.items() if name != model}
        self._wanted = {**others, model: dict(versions)} if versions else others
        mine = tuple(failures)
        self._failures = (*(f for f in self._failures if f.model != model), *mine)
        self._stuck = {key for key in self._stuck if key[0] != model}
        for key, attempt in self._attempts.items():
            if key[0] == model and key not in self._in_flight:
                attempt.spec, attempt.error = attempt.serving, ""
        _log_failures(mine)
        self._step()

    def keep_serving(self, model: str, version: int, reason: str) -> None:
        """Says of a version that serves why a newer form of it could not even be tried; until the next set_model."""
        attempt = self._attempts.get((model, version))
        if attempt is not None and attempt.serving is not None and (model, version) not in self._in_flight:
            attempt.error = reason

    async def settle(self) -> None:
        """Returns when nothing is in flight and the policy has nothing left to do."""
        await self._idle.wait()

    async def settle_model(self, model: str) -> None:
        """As settle, for one model."""
        while any(name == model for name, _ in self._in_flight):
            await self._changed.wait()

    async def close(self) -> None:
        """Starts nothing more and waits for what is in flight."""
        self._closed = True
        if self._in_flight:
            await asyncio.wait(self._in_flight.values())
        self._loaders.shutdown(wait=False)
        self._unloaders.shutdown(wait=False)

    # --- reading

    @property
    def closed(self) -> bool:
        return self._closed

    def wanted(self, model: str) -> Mapping[int, VersionSpec]:
        return self._wanted.get(model, {})

    def failed(self, model: str) -> dict[int, str]:
        """The wanted versions whose last load failed, and why."""
        attempts = {version: self._attempts.get((model, version)) for version in self.wanted(model)}
        return {version: a.error for version, a in sorted(attempts.items()) if a is not None and a.error}

    def model_states(self) -> list[ModelState]:
        """Every version that is wanted or in the engine, and every failure before that; by model, then version."""
        states: dict[tuple[str, int | None], ModelState] = {}
        for model, versions in self._wanted.items():
            for version in versions:
                states[model, version] = ModelState(model, version, "NEW")
        for key, attempt in self._attempts.items():
            if attempt.error:
                states[key] = ModelState(*key, "FAILED", attempt.error)
        for failure in self._failures:
            states[failure.model, failure.version] = failure
        for status in self._core.status():
            key = (status.model, status.version)
            states[key] = ModelState(*key, status.state, self._reason(status), status.progress)
        for key, doing in self._doing.items():
            # The engine knows more about a version that it is loading; between two states it knows less.
            if key not in states or states[key].state in {"NEW", "FAILED", "UNLOADED"}:
                states[key] = doing
        return [states[key] for key in sorted(states, key=lambda k: (k[0], k[1] or 0))]

    def spec(self, model: str, version: int) -> VersionSpec | None:
        """What a version that serves was loaded from; of one that never did, what is wanted."""
        attempt = self._attempts.get((model, version))
        if attempt is not None and attempt.serving is not None:
            return attempt.serving
        return self._wanted.get(model, {}).get(version)

    def _reason(self, status: _core.VersionStatus) -> str:
        attempt = self._attempts.get((status.model, status.version))
        if status.state == "READY" and attempt is not None and attempt.error:
            return f"serves on as it was; the new one failed: {attempt.error}"
        return status.reason

    # --- doing

    def _actual(self) -> dict[Key, Actual]:
        actual = {
            key: Actual("FAILED", attempt.spec) for key, attempt in self._attempts.items() if attempt.error
        }
        for status in self._core.status():
            key = (status.model, status.version)
            attempt = self._attempts.get(key)
            actual[key] = Actual(status.state, attempt.spec if attempt else None)
        for key in (*self._in_flight, *self._stuck):
            actual[key] = Actual("DRAINING" if key in self._stuck else "LOADING")
        return actual

    def _step(self) -> None:
        if not self._closed:
            for action in plan(self._wanted, self._actual()):
                key = (action.model, action.version)
                spec = self._wanted[action.model][action.version] if action.kind == "load" else None
                self._in_flight[key] = asyncio.create_task(self._run(key, spec))
        if self._in_flight:
            self._idle.clear()
        else:
            self._idle.set()

    async def _run(self, key: Key, spec: VersionSpec | None) -> None:
        """`spec` None: unload."""
        try:
            if spec is not None:
                await self._load(key, spec)
            else:
                await self._unload(key)
        finally:
            self._in_flight.pop(key, None)
            self._doing.pop(key, None)
            self._step()
            self._changed.set()
            self._changed = asyncio.Event()

    async def _load(self, key: Key, spec: VersionSpec) -> None:
        fields = {"model": spec.model, "version": spec.version}
        attempt = self._attempts.setdefault(key, _Attempt(spec))
        attempt.spec, attempt.error = spec, ""
        self._doing[key] = ModelState(*key, "LOADING", "waiting for a loader thread")
        started = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(
                self._loaders, lambda: backend_choice.load(self._core, spec, self._report(loop, key))
            )
        except Exception as error:  # whatever a backend throws: this version failed, the others go on
            attempt.error = str(error) or type(error).__name__
            logger.error("%s version %d failed to load: %s", *key, attempt.error, extra=fields)
            return
        attempt.serving = spec
        logger.info("%s version %d is ready (%.1f s)", *key, time.monotonic() - started, extra=fields)

    async def _unload(self, key: Key) -> None:
        fields = {"model": key[0], "version": key[1]}
        self._doing[key] = ModelState(*key, "DRAINING")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._unloaders, self._core.unload, *key, self._drain_seconds)
        except errors.NotFound:  # gone already
            pass
        except Exception as error:
            self._stuck.add(key)
            logger.error("%s version %d failed to unload: %s", *key, error, extra=fields)
            return
        self._attempts.pop(key, None)
        logger.info("%s version %d is unloaded", *key, extra=fields)

    def _report(self, loop: asyncio.AbstractEventLoop, key: Key) -> Callable[[float, str], None]:
        """The engine's progress callback (loader thread) -> the event loop."""

        def report(fraction: float, what: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._progressed, key, fraction, what)

        return report

    def _progressed(self, key: Key, fraction: float, what: str) -> None:
        if key in self._doing:
            self._doing[key] = replace(self._doing[key], reason=what, progress=fraction)
        if self._on_progress is not None:
            self._on_progress(*key, fraction, what)


def _log_failures(failures: Iterable[ModelState]) -> None:
    for failure in failures:
        logger.error("%s", failure.reason, extra={"model": failure.model, "version": failure.version})
