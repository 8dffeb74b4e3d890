"""Puts models to sleep and wakes them, as residency.py has it: `--memory-budget-bytes`, `--unload-idle-secs`, `--load-on-demand`.

    residency = Residency(engine.core, reconciler, Rules(budget_bytes=8 << 30), holds=True)
    residency.begin(scan.models)      # before the first load
    residency.start()                 # a task; woken by the engine when a sleeping model is asked

A request to a sleeping model is held by the engine until the model is loaded (`holds`), or refused with UNAVAILABLE at once; the
load begins either way. Sizes: the most that the process grew by when the version was loaded alone, at least what its files have.
Runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from fastserve import _core
from fastserve.errors import NotFound
from fastserve.lifecycle.model_folder import FoundModel
from fastserve.lifecycle.reconciler import Reconciler
from fastserve.lifecycle.residency import Plan, Resident, Rules, first_asleep, plan

logger = logging.getLogger("fastserve.lifecycle")

LOOK_S = 1.0  # between two looks where models may have to go
WAIT_S = 0.1  # while somebody waits for room
FIRST_GUESS_S = 1.0  # how long a load takes that was never measured
MOST_RETRY_AFTER_S = 600
ASLEEP = "asleep: it is loaded when it is asked for"


class Core(Protocol):
    """The part of _core.Engine that is used here."""

    def set_asleep(self, model: str, holds: bool = True, load_s: int = 1) -> None: ...
    def set_awake(self, model: str, reason: str = "") -> None: ...
    def take_asked(self) -> list[str]: ...
    def asked_fd(self) -> int: ...
    def status(self) -> list[_core.VersionStatus]: ...
    def statistics(self, model: str, version: int) -> _core.VersionStatistics: ...


class Residency:
    def __init__(
        self,
        core: Core,
        reconciler: Reconciler,
        rules: Rules,
        *,
        holds: bool = True,
        on_demand: bool = False,
        pinned: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._core = core
        self._reconciler = reconciler
        self._rules = rules
        self._holds = holds
        self._on_demand = on_demand
        self._pinned = pinned
        self._asleep: set[str] = set()
        self._asked: list[str] = []
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[str] = set()
        self._awake_s: dict[str, float] = {}
        self._sizes: dict[str, int] = {}  # measured
        self._most: dict[tuple[str, str], int] = {}  # (model, path of a version)
        self._load_s: dict[str, float] = {}
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.wakes = 0  # loads because somebody asked

    @property
    def is_on(self) -> bool:
        return self._on_demand or self._rules.budget_bytes > 0 or self._rules.idle_s > 0

    @property
    def asleep(self) -> frozenset[str]:
        return frozenset(self._asleep)

    def begin(self, models: Iterable[FoundModel]) -> None:
        """Says which of the models of the start sleep at first; before they are wanted."""
        found = [model for model in models if model.versions]
        pinned = frozenset(model.name for model in found if model.pinned)
        sizes = {m.name: sum(file_bytes(spec.path) for spec in m.versions.values()) for m in found}
        asleep = set(sizes) - pinned if self._on_demand else set()
        for model in asleep | first_asleep(sizes, pinned, self._rules.budget_bytes):
            self._sizes[model] = sizes[model]
            self._mark_asleep(model)

    def start(self) -> None:
        if self.is_on:
            self._reconciler.on_sleeper_unwanted = self._look.set
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Puts nobody to sleep and wakes nobody from here on; what is under way ends with the reconciler."""
        if self._task is None:
            return
        asyncio.get_running_loop().remove_reader(self._core.asked_fd())
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        asyncio.get_running_loop().add_reader(self._core.asked_fd(), self._look.set)
        while True:
            waits = False
            try:
                waits = self._step()
            except Exception:
                logger.exception("cannot decide which models are in memory")
            pause = WAIT_S if waits else LOOK_S if self._rules.budget_bytes or self._rules.idle_s else None
            try:
                async with asyncio.timeout(pause):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()

    def _step(self) -> bool:
        for model in [m for m in self._asleep if not self._reconciler.sleeps(m) and m not in self._moving]:
            self._asleep.discard(model)  # unloaded by request, or gone from its repository
            self._asked = [asked for asked in self._asked if asked != model]
            self._move(model, asyncio.to_thread(self._core.set_awake, model, "it is not served any more"))
        for model in self._core.take_asked():
            if model in self._asleep and model not in self._asked:
                self._asked.append(model)
        now = time.time()
        asked = {m: self._sizes.get(m, 0) for m in self._asked if m not in self._moving}
        decided = plan(self._residents(now), asked, self._rules, now)
        self._do(decided)
        return decided.waits

    def _do(self, decided: Plan) -> None:
        for model in decided.sleep:
            self._mark_asleep(model)
            self._leaving.add(model)
            logger.info("model '%s' is put to sleep", model, extra={"model": model})
            self._move(model, self._settle_sleep(model))
        for model in decided.wake:
            self._asked.remove(model)
            self._asleep.discard(model)
            self.wakes += 1
            self._move(model, self._wake(model))
        for model, reason in decided.refused.items():
            self._asked.remove(model)
            logger.error("model '%s' is not loaded: %s", model, reason, extra={"model": model})
            self._move(model, self._refuse(model, reason))

    def _mark_asleep(self, model: str) -> None:
        """The engine first: no request may find the model gone and unknown."""
        self._asleep.add(model)
        self._core.set_asleep(model, self._holds, retry_after_s(self._last_load_s(model)))
        self._reconciler.set_asleep(model, True, ASLEEP)

    def _last_load_s(self, model: str) -> float:
        """Of its slowest version; of one that is not in memory, of its last wake."""
        return self._reconciler.load_s(model) or self._load_s.get(model) or FIRST_GUESS_S

    def _move(self, model: str, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._moving[model] = task
        task.add_done_callback(lambda _: self._moved(model))

    def _moved(self, model: str) -> None:
        self._moving.pop(model, None)
        self._leaving.discard(model)
        self._look.set()

    async def _settle_sleep(self, model: str) -> None:
        await self._reconciler.settle_model(model)

    async def _wake(self, model: str) -> None:
        began = time.monotonic()
        self._awake_s[model] = time.time()
        self._reconciler.set_asleep(model, False)
        await self._reconciler.settle_model(model)
        self._load_s[model] = time.monotonic() - began
        self._awake_s[model] = time.time()
        failed = self._reconciler.failed(model)
        reason = (
            ""
            if self._reconciler.serving(model)
            else "; ".join(failed.values()) or "it is not served any more"
        )
        await asyncio.to_thread(self._core.set_awake, model, reason)

    async def _refuse(self, model: str, reason: str) -> None:
        """What waits is answered; the model goes on sleeping."""
        await asyncio.to_thread(self._core.set_awake, model, reason)
        self._mark_asleep(model)

    def _size(self, status: _core.VersionStatus, path: str) -> int:
        """The most that was seen of it: loaded again, it takes memory that the process has kept, and hardly grows."""
        if status.state not in ("READY", "DRAINING"):
            return max(self._most.get((status.model, path), 0), file_bytes(path))
        if (
            status.memory_bytes > self._most.get((status.model, path), 0)
            or (status.model, path) not in self._most
        ):
            self._most[status.model, path] = max(status.memory_bytes, file_bytes(path))
        return self._most[status.model, path]

    def _residents(self, now: float) -> list[Resident]:
        pinned = set(self._pinned())
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        busy: set[str] = set(self._moving) - self._leaving
        for status in self._core.status():
            model = status.model
            if status.state not in ("LOADING", "WARMING", "READY", "DRAINING"):
                continue
            spec = self._reconciler.spec(model, status.version)
            size = self._size(status, spec.path if spec is not None else "")
            sizes[model] = sizes.get(model, 0) + size
            used.setdefault(model, self._awake_s.setdefault(model, now))
            if status.state in ("LOADING", "WARMING"):
                busy.add(model)
            try:
                statistics = self._core.statistics(model, status.version)
            except NotFound:
                continue
            used[model] = max(used[model], statistics.last_inference_ms / 1000)
            if statistics.in_flight:
                busy.add(model)
        for model in busy - set(sizes):  # about to be loaded
            sizes[model] = self._sizes.get(model, 0)
        self._sizes |= {model: size for model, size in sizes.items() if model not in busy}
        return [
            Resident(
                model,
                size,
                used.get(model, now),
                self._awake_s.get(model, now),
                model in pinned,
                model in busy,
                model in self._leaving,
            )
            for model, size in sizes.items()
        ]


def retry_after_s(load_s: float) -> int:
    """What to tell clients that ask for a model whose load took so long: 1 to MOST_RETRY_AFTER_S whole seconds."""
    return max(1, math.ceil(min(load_s, MOST_RETRY_AFTER_S)))


def file_bytes(path: str) -> int:
    """Of a version's files: of its folder, or of the folder that its file stands in. 0: there are none."""
    if not path:
        return 0
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(where) / name).stat().st_size
            except OSError:
                continue
    return total
