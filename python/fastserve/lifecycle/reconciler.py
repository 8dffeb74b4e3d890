"""Makes the engine hold the wanted set: asks the policy what to do, has threads do it, and asks again.

    reconciler = Reconciler(engine.core, loader_threads=2)
    reconciler.set_model("digits", {2: spec})     # version 2 is loaded; what else there is of it goes when 2 is ready
    await reconciler.settle_model("digits")
    reconciler.failed("digits")                   # {} or {2: "why"}

Everything here runs on the event loop's thread; the engine's blocking calls run on threads of their own (loaders.py), as many
at a time as the policy has room for. Only models to which something happened are looked at again. The parts: policy.py decides,
loading.py carries out a load, version_record.py remembers, states.py tells.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_numbers
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fastserve import _core, errors
from fastserve.lifecycle import loading, states
from fastserve.lifecycle.found_failures import FoundFailures
from fastserve.lifecycle.load_counts import LoadCounts
from fastserve.lifecycle.loaders import LoaderThreads, Threads
from fastserve.lifecycle.loading import Loading, Progress
from fastserve.lifecycle.policy import NOTHING, Action, Key, Manner, Room, Wanted, Wish, choose, plan_model
from fastserve.lifecycle.retry import RetryRule
from fastserve.lifecycle.version_record import ModelState, VersionRecord
from fastserve.lifecycle.version_spec import VersionSpec

__all__ = ["Core", "Manner", "ModelState", "Progress", "Reconciler", "RetryRule"]

logger = logging.getLogger("fastserve.lifecycle")

STILL_RUNS = "it cannot be ended and still runs, its result will be thrown away"
MOST_UNLOADS = 4  # at a time; they wait for requests that are still running


class Core(loading.Core, Protocol):
    """The part of _core.Engine that is used here."""

    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None: ...
    def status(self) -> list[_core.VersionStatus]: ...


class Reconciler:
    """`set_wanted` and `set_model` say what should be served; `settle` waits until it is, as far as it can be now."""

    def __init__(
        self,
        core: Core,
        *,
        loader_threads: int = 2,
        drain_seconds: float | None = None,
        resource_preserving: bool = False,
        load_timeout_s: float = 0.0,
        retry: RetryRule | None = None,
        on_progress: Progress | None = None,
        threads: Threads | None = None,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        """`drain_seconds`: how long a version that is unloaded may answer what waits in its queue (None: as long as it takes).
        `resource_preserving` and `load_timeout_s` (0: none): of models whose Manner does not say it. `on_progress` is called
        on the event loop's thread."""
        self._core = core
        self._drain_seconds = drain_seconds
        self._resource_preserving = resource_preserving
        self._load_timeout_s = load_timeout_s
        self._threads = threads or LoaderThreads()
        self.counts = LoadCounts()
        self._loading = Loading(
            core,
            self._threads,
            self.counts,
            places=loader_threads,
            rule=retry or RetryRule(),
            random=random,
            on_progress=on_progress,
            touch=self._touch,
            thread_came_back=self._thread_came_back,
        )
        self._wishes: dict[str, Wish] = {}
        self._manners: dict[str, Manner] = {}
        self._asleep: dict[str, str] = {}  # model -> why
        self.on_sleeper_unwanted: Callable[[], None] | None = None
        self._failures = FoundFailures(self.counts)  # what did not get as far as a spec
        self._records: dict[str, dict[int, VersionRecord]] = {}
        self._adopted = False  # what was in the engine before us
        self._dirty: set[str] = set()  # models to look at
        self._due: dict[str, list[Action]] = {}  # what waits for room
        self._serving: set[str] = set()  # models with a READY version
        self._in_flight: dict[Key, asyncio.Task[None]] = {}
        self._loads_running = 0
        self._changed = asyncio.Event()  # set, and replaced, whenever something in flight ended
        self._closed = False

    # --- wanted

    async def set_wanted(
        self,
        wanted: Wanted,
        failures: Iterable[ModelState] = (),
        manners: Mapping[str, Manner] | None = None,
    ) -> None:
        """Replaces the wanted set and starts what that asks for. `failures`: what did not get as far as a spec. What failed
        to load before is left alone unless its spec changed."""
        failed: dict[str, list[ModelState]] = {}
        for failure in failures:
            failed.setdefault(failure.model, []).append(failure)
        self._adopt()
        for model in {*self._wishes, *self._failures.models(), *self._records, *wanted, *failed}:
            self._want(model, wanted.get(model, {}), failed.get(model, ()), (manners or {}).get(model))
        self._step()

    def set_model(
        self,
        model: str,
        versions: Mapping[int, VersionSpec],
        failures: Iterable[ModelState] = (),
        *,
        manner: Manner | None = None,
        again: bool = True,
    ) -> None:
        """As set_wanted, for one model; `versions` empty: it goes. `again`: somebody asks for it, what failed before is tried
        again now; else (a poll) only what has changed is."""
        if again:
            self._failures.forget_model(model)
        self._want(model, versions, failures, manner, again)
        if again:
            for version, record in self._records.get(model, {}).items():
                if version in versions:
                    record.try_again()
        self._step()

    def set_asleep(self, model: str, asleep: bool, reason: str = "") -> None:
        """A model that sleeps stays wanted, but is unloaded and not loaded; `reason` is shown meanwhile. Holds until the model
        is woken or is not wanted any more; may be said before it is wanted."""
        if asleep:
            self._asleep[model] = reason
        else:
            self._asleep.pop(model, None)
        if model in self._wishes:
            self._wishes[model] = self._wish(model, self._wishes[model].versions)
            self._touch(model)

    def sleeps(self, model: str) -> bool:
        return model in self._asleep

    def keep_serving(self, model: str, version: int, reason: str) -> None:
        """Says of a version that serves why a newer form of it could not even be tried; until the next set_model."""
        record = self._records.get(model, {}).get(version)
        if record is not None and record.serving is not None:
            record.kept = reason
            self._failures.say(ModelState(model, version, "FAILED", reason))

    async def settle(self) -> None:
        """Returns when nothing is in flight and nothing can be done now; what is tried again later is not waited for."""
        while self._in_flight or self._due:
            await self._changed.wait()

    async def settle_model(self, model: str) -> None:
        """As settle, for one model."""
        while model in self._due or any(name == model for name, _ in self._in_flight):
            await self._changed.wait()

    async def close(self) -> None:
        """Starts nothing more and waits for what is in flight, but not for loads that were given up (`hung`)."""
        self._closed = True
        self._due.clear()
        self._notify()
        if self._in_flight:
            await asyncio.wait(self._in_flight.values())

    # --- reading

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def hung(self) -> int:
        """Loads that were given up at their time limit and still run, each on its thread."""
        return self._loading.hung

    def wanted(self, model: str) -> Mapping[int, VersionSpec]:
        return self._wishes.get(model, NOTHING).versions

    def serving(self, model: str) -> set[int]:
        """The versions that are READY or DRAINING."""
        return {v for v, r in self._records.get(model, {}).items() if r.serves is not None or r.stuck}

    def load_s(self, model: str) -> float:
        """How long the last load took of the version of which it took longest; 0: not known."""
        return max((record.load_s for record in self._records.get(model, {}).values()), default=0.0)

    def failed(self, model: str) -> dict[int, str]:
        """The wanted versions whose last load failed, and why."""
        records = self._records.get(model, {})
        reasons = {v: self._reason(records[v]) for v in sorted(self.wanted(model)) if v in records}
        return {version: reason for version, reason in reasons.items() if reason}

    def spec(self, model: str, version: int) -> VersionSpec | None:
        """What a version that serves was loaded from; of one that never did, what is wanted."""
        record = self._records.get(model, {}).get(version)
        if record is not None and record.serving is not None:
            return record.serving
        return self.wanted(model).get(version)

    def model_states(self) -> list[ModelState]:
        """Every version that is wanted or in the engine, and every failure before that; by model, then version."""
        now = asyncio.get_running_loop().time()
        reasons = {record: self._told(record) for record in self._all_records()}
        return states.model_states(
            self._wishes, self._asleep, reasons, self._failures, self._core.status(), now
        )

    def _reason(self, record: VersionRecord) -> str:
        return self._loading.no_place if record.refused is not None else record.error

    def _told(self, record: VersionRecord) -> str:
        reason = self._reason(record)
        return f"{reason}; {STILL_RUNS}" if reason == record.error and record.is_late else reason

    # --- what is wanted

    def _want(
        self,
        model: str,
        versions: Mapping[int, VersionSpec],
        failures: Iterable[ModelState],
        manner: Manner | None,
        again: bool = True,
    ) -> None:
        self._adopt()
        if again or versions != self.wanted(model):
            self._look_at_stuck(model)
        if manner is not None:
            self._manners[model] = manner
        if versions:
            self._wishes[model] = self._wish(model, dict(versions))
        elif self._wishes.pop(model, None) is not None:
            self._manners.pop(model, None)
            if self._asleep.pop(model, None) is not None and self.on_sleeper_unwanted is not None:
                self.on_sleeper_unwanted()
        for version, record in self._records.get(model, {}).items():
            if not record.kept:
                self._failures.forget(model, version)
            record.kept = ""
        self._failures.set(model, tuple(failures))
        self._dirty.add(model)

    def _wish(self, model: str, versions: Mapping[int, VersionSpec]) -> Wish:
        manner = self._manners.get(model, Manner())
        resources = manner.resource_preserving
        return Wish(
            versions,
            self._resource_preserving if resources is None else resources,
            manner.priority,
            model in self._asleep,
        )

    def _adopt(self) -> None:
        """What serves in the engine and was not loaded by us."""
        if self._adopted:
            return
        self._adopted = True
        for status in self._core.status():
            if status.state == "READY":
                self._record(status.model, status.version).adopt(True)
                self._dirty.add(status.model)

    def _look_at_stuck(self, model: str) -> None:
        """Versions whose unload failed may be unloaded again; what they are now, the engine knows."""
        stuck = [record for record in self._records.get(model, {}).values() if record.stuck]
        if not stuck:
            return
        ready = {(s.model, s.version) for s in self._core.status() if s.state == "READY"}
        for record in stuck:
            record.adopt((model, record.version) in ready)

    # --- doing

    def _record(self, model: str, version: int) -> VersionRecord:
        return self._records.setdefault(model, {}).setdefault(version, VersionRecord(model, version))

    def _all_records(self) -> Iterator[VersionRecord]:
        for records in self._records.values():
            yield from records.values()

    def _touch(self, model: str) -> None:
        self._dirty.add(model)
        self._step()

    def _thread_came_back(self) -> None:
        for record in self._all_records():
            if record.refused is not None:
                record.refused = None
                self._dirty.add(record.model)
        self._step()

    def _step(self) -> None:
        if not self._closed:
            now = asyncio.get_running_loop().time()
            while self._dirty:
                self._look_at(self._dirty.pop(), now)
            if self._loading.places == 0:
                self._refuse_loads()
            for action in choose(self._due, self._wishes, self._serving, self._room()):
                self._start(action)
        self._notify()

    def _look_at(self, model: str, now: float) -> None:
        records = {version: r for version, r in self._records.pop(model, {}).items() if not r.is_blank}
        if records:
            self._records[model] = records
        wish = self._wishes.get(model, NOTHING)
        for version, record in records.items():
            if record.serving is not None and record.serving == wish.versions.get(version):
                record.serves_as_wanted()
            if record.refused is not None and record.refused != wish.versions.get(version):
                record.refused = None
        actual = {version: record.actual() for version, record in records.items()}
        due = plan_model(model, wish, actual, now)
        self._due.pop(model, None)
        if due:
            self._due[model] = due
        self._serving.discard(model)
        if any(entry.state == "READY" for entry in actual.values()):
            self._serving.add(model)

    def _room(self) -> Room:
        unloads_running = len(self._in_flight) - self._loads_running
        return Room(self._loading.places - self._loads_running, MOST_UNLOADS - unloads_running)

    def _refuse_loads(self) -> None:
        """No loader thread is left, and maybe none ever will be: what is due fails now instead of waiting."""
        for model in list(self._due):
            for action in [a for a in self._due[model] if a.kind == "load"]:
                self._not_due(action)
                record = self._record(model, action.version)
                self._loading.refuse(record, self._wishes[model].versions[action.version])

    def _not_due(self, action: Action) -> None:
        due = self._due[action.model]
        due.remove(action)
        if not due:
            del self._due[action.model]

    def _start(self, action: Action) -> None:
        """The record says at once that it runs: the policy may be asked again before the task has begun."""
        key = (action.model, action.version)
        self._not_due(action)
        record = self._record(*key)
        if action.kind == "unload":
            if record.unload_begins():
                self._in_flight[key] = asyncio.create_task(self._run(key, self._unload(record), 0))
            return
        spec = self._wishes[action.model].versions[action.version]
        again = record.failures > 0 and record.tried == spec
        if record.load_begins(spec):
            if again:
                self.counts.retried(*key)
            limit_s = self._manners.get(action.model, Manner()).load_timeout_s
            load = self._loading.load(record, spec, self._load_timeout_s if limit_s is None else limit_s)
            self._loads_running += 1
            self._in_flight[key] = asyncio.create_task(self._run(key, load, 1))

    async def _run(self, key: Key, work: Awaitable[None], loads: int) -> None:
        try:
            await work
        except (asyncio.CancelledError, GeneratorExit):
            self._closed = True  # the loop ends
            raise
        finally:
            self._in_flight.pop(key, None)
            self._loads_running -= loads
            self._touch(key[0])

    async def _unload(self, record: VersionRecord) -> None:
        key = (record.model, record.version)
        served = record.serves is not None
        try:
            await self._threads.run(
                f"unload-{record.model}-{record.version}",
                lambda: self._core.unload(*key, self._drain_seconds),
            )
        except errors.NotFound:  # gone already
            pass
        except Exception as error:
            record.unload_failed()
            logger.error("%s failed to unload: %s", record.text, error, extra=record.fields)
            return
        record.unload_ended()
        if served:
            logger.info("%s is unloaded", record.text, extra=record.fields)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
