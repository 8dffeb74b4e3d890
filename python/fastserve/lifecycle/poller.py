"""Looks at the repositories every so many seconds and applies what has changed; the rules are in poll_rules.py.

    poller = Poller(repositories, poll_s=15)
    scan = poller.first()              # blocking, instead of Repositories.scan: leaves out what is being written just now
    poller.start(control)              # on the event loop, once the first load has begun
    await poller.close()

A look runs on a thread of its own in short slices (poll_look.py), one at a time; one that hangs (a network file system) holds
up the next and nothing else. What cannot be read stays as it was: models serve on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fastserve.errors import FastserveError, NotFound
from fastserve.lifecycle.loaders import LoaderThreads, Threads
from fastserve.lifecycle.model_folder import FoundModel
from fastserve.lifecycle.poll_look import Found, PollLook
from fastserve.lifecycle.poll_rules import PollRules, Step, waiting_versions, worded
from fastserve.lifecycle.repository import Repositories, Scan
from fastserve.lifecycle.version_spec import VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

MIN_SETTLE_S = 1.0  # however often is polled, a version that does not say that it is finished has to stay the same so long
POLL_NICE = 10  # as loads have: who answers requests comes first
START_SETTLE_S = 2.0  # at start, where nobody wants to wait for a whole interval
LEARN_BYTES = (
    64 << 20
)  # of content that are read after a poll that found nothing, to know them when only times change


class Control(Protocol):
    """The part of ModelControl that is used here."""

    async def apply(self, models: Iterable[FoundModel], gone: Collection[str] = ()) -> None: ...
    def set_waiting(self, waiting: Mapping[tuple[str, int], str]) -> None: ...


@dataclass
class PollFigures:
    """For metrics."""

    polls: int = 0
    changes: int = 0  # models that were read again, or are gone
    seconds: float = 0.0  # that the last poll took
    changing: int = 0  # versions and configurations that are being waited for
    lost: tuple[tuple[str, bool], ...] = ()  # repository or list, and whether it cannot be read


class Poller:
    def __init__(
        self,
        repositories: Repositories,
        poll_s: float,
        *,
        folders: bool = True,
        threads: Threads | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`folders`: False, files that list models are read again and nothing else is."""
        self.poll_s = poll_s
        self.settle_s = max(poll_s, MIN_SETTLE_S)
        self.figures = PollFigures()
        self._repositories = repositories
        self._folders = folders
        self._look = PollLook(repositories, folders=folders)
        self._rules = PollRules()
        self._threads = threads or LoaderThreads()
        self._clock, self._wall_ns, self._sleep = clock, wall_ns, sleep
        self._versions: dict[str, Mapping[int, VersionSpec]] = {}  # as they were applied last
        self._lost: dict[str, str] = {}
        self._changing: Mapping[tuple[str, str], str] = {}
        self._task: asyncio.Task[None] | None = None

    # --- blocking; one thread at a time

    def first(self) -> Scan:
        """What is there now. Waits START_SETTLE_S where something was written just now. Raises what Repositories.scan
        raises."""
        everything = Scan(()) if self._folders else self._repositories.scan()
        look, found = self._look.look()
        for error in found.lost.values():
            raise error if isinstance(error, FastserveError) else NotFound(str(error))
        settle_s = min(self.settle_s, START_SETTLE_S)
        step = self._rules.step(look, self._clock(), settle_s, self._wall_ns())
        models = self._read(step, found)
        if step.changing:
            self._sleep(settle_s)
            look, found = self._look.look()
            step = self._rules.step(look, self._clock(), settle_s)
            models |= self._read(step, found)
        self._tell(step, found)
        models = {model.name: model for model in everything.models} | models
        return Scan(tuple(models[name] for name in sorted(models)))

    def poll(self) -> tuple[list[FoundModel], frozenset[str]]:
        """What has changed, and what is gone."""
        started = self._clock()
        try:
            look, found = self._look.look()
        except FastserveError as error:  # a list that was never read
            logger.error("%s", error)
            return [], frozenset()
        step = self._rules.step(look, self._clock(), self.settle_s)
        models = self._read(step, found)
        self._tell(step, found)
        self.figures.polls += 1
        self.figures.changes += len(models) + len(step.gone)
        self.figures.seconds = self._clock() - started
        if not models and not step.gone:
            self._repositories.fingerprints.learn(LEARN_BYTES)
        return list(models.values()), step.gone

    def _read(self, step: Step, found: Found) -> dict[str, FoundModel]:
        models = {}
        for name, held in step.read.items():
            before = self._versions.get(name, {})
            specs = {number: before.get(number) if there else None for number, there in held.items()}
            model = self._repositories.model(
                name, found.places.get(name, ()), found.problems.get(name, ()), held=specs
            )
            models[name] = model
            self._versions[name] = {**before, **model.versions} if model.problems else model.versions
        for name in step.gone:
            self._versions.pop(name, None)
        return models

    def _tell(self, step: Step, found: Found) -> None:
        lost = {source: str(error) for source, error in found.lost.items()}
        for source, why in lost.items():
            if source not in self._lost:
                logger.warning("%s; its models serve on as they are", why, extra={"repository": source})
        for source in self._lost.keys() - lost.keys():
            logger.info("'%s' can be read again", source, extra={"repository": source})
        for (model, part), why in step.changing.items():
            if (model, part) not in self._changing:
                place = f"{model}/{part}" if part else model
                logger.info("%s waits: it %s", place, worded(why), extra={"model": model})
        self._lost, self._changing = lost, step.changing
        sources = dict.fromkeys(found.sources, False) | dict.fromkeys(lost, True)
        self.figures.lost = tuple(sorted(sources.items()))
        self.figures.changing = len(step.changing)

    # --- on the event loop

    def start(self, control: Control) -> None:
        self._tell_waiting(control)
        self._task = asyncio.get_running_loop().create_task(self._run(control), name="fastserve-poll")

    async def close(self) -> None:
        """Applies nothing more. A look that is under way is not waited for."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _tell_waiting(self, control: Control) -> None:
        if self._folders:
            control.set_waiting(waiting_versions(self._changing))

    async def _run(self, control: Control) -> None:
        while True:
            await asyncio.sleep(self.poll_s)
            try:
                models, gone = await self._poll_on_thread()
                if models or gone:
                    await control.apply(models, gone)
                self._tell_waiting(control)
            except Exception:  # a fault of ours in one poll must not end polling
                logger.exception("a poll of the model repositories failed")

    async def _poll_on_thread(self) -> tuple[list[FoundModel], frozenset[str]]:
        result: list[tuple[list[FoundModel], frozenset[str]]] = []

        def work() -> None:
            result.append(self.poll())

        await self._threads.run("poll", work, POLL_NICE)
        return result[0]
