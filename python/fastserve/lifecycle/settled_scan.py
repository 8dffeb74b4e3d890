"""What lies in the repositories now, without what is being written: for a reload, which nobody repeats by itself.

One look where everything is older than SETTLE_S, else a second one that much later; the rules are those of polling
(poll_rules.py). What still changes then is left as it is served, and named in the log. Blocking; any thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from fastserve.errors import FastserveError, NotFound
from fastserve.lifecycle.model_folder import FoundModel, Held
from fastserve.lifecycle.poll_look import Found, PollLook
from fastserve.lifecycle.poll_rules import Look, PollRules, Step, waiting_versions
from fastserve.lifecycle.repository import Repositories
from fastserve.lifecycle.version_spec import VersionSpec

logger = logging.getLogger("fastserve.lifecycle")

SETTLE_S = 2.0

Wanted = Mapping[str, Mapping[int, VersionSpec]]  # model -> version -> what is served of it


@dataclass(frozen=True)
class Settled:
    """`kept`: models that are there and cannot be read now; they stay as they are. `held`: of each model, versions that are being
    written: what is served of them; None: nothing is."""

    models: tuple[FoundModel, ...]
    kept: frozenset[str] = frozenset()
    held: Mapping[str, Held] = field(default_factory=dict)
    waiting: Mapping[tuple[str, int], str] = field(default_factory=dict)  # why


class SettledScan:
    def __init__(
        self,
        repositories: Repositories,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._repositories = repositories
        self._wall_ns, self._sleep = wall_ns, sleep

    def scan(self, wanted: Wanted, names: Collection[str] | None = None) -> Settled:
        """`wanted`: for versions that are being written. `names`: these models alone. Raises what Repositories.scan raises."""
        for entry in self._repositories.lists:
            entry.refresh()
        looking, rules = PollLook(self._repositories), PollRules()
        look, found = _look(looking, names)
        step = rules.step(look, 0.0, SETTLE_S, self._wall_ns())
        held = _held(step, wanted)
        models = self._read(found, held)
        if step.changing:
            self._sleep(SETTLE_S)
            look, found = _look(looking, names)
            step = rules.step(look, SETTLE_S, SETTLE_S)
            again = _held(step, wanted)
            held |= again
            models |= self._read(found, again)
            for name in step.gone:  # since the first look
                models.pop(name, None)
        for (model, part), why in step.changing.items():
            place = f"{model}/{part}" if part else model
            text = "%s is left as it is, because it is being written (%s): reload again once it is complete"
            logger.warning(text, place, why, extra={"model": model})
        there = {name for name, parts in look.models.items() if parts} | look.unknown
        kept = frozenset(there - models.keys())
        return Settled(
            tuple(models[name] for name in sorted(models)), kept, held, waiting_versions(step.changing)
        )

    def _read(self, found: Found, held: Mapping[str, Held]) -> dict[str, FoundModel]:
        return {
            name: self._repositories.model(
                name, found.places.get(name, ()), found.problems.get(name, ()), held=versions
            )
            for name, versions in held.items()
        }


def _held(step: Step, wanted: Wanted) -> dict[str, Held]:
    """Of each model that is to be read."""
    return {
        name: {number: wanted.get(name, {}).get(number) for number in held}
        for name, held in step.read.items()
    }


def _look(looking: PollLook, names: Collection[str] | None) -> tuple[Look, Found]:
    look, found = looking.look(names)
    for error in found.lost.values():
        raise error if isinstance(error, FastserveError) else NotFound(str(error))
    return look, found
