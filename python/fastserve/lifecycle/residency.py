"""Which models are in memory, and which sleep until somebody asks for them. Pure: sizes, times and the clock come as arguments.

A model sleeps when it was not used for `idle_s`, or when another one is asked for and the budget has no room: then the least
recently used go first. Never: a pinned model, one with requests in flight, one that is loading. Hysteresis: a model that was
woken stays for `stay_s`, so that two models that do not fit together take turns of that length instead of loading all the time;
who is asked for meanwhile waits (or is refused, see residency_loop.py) until then. Asked models are woken in the order in which
they were asked; while the first waits for room, nobody overtakes it.

Without a budget and idle_s nothing ever sleeps but what was put to sleep at the start (on demand).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

STAY_S = 2.0


@dataclass(frozen=True)
class Rules:
    budget_bytes: int = 0  # 0: none
    idle_s: float = 0.0  # 0: nobody sleeps because of that
    stay_s: float = STAY_S


@dataclass(frozen=True)
class Resident:
    """A model that is in memory, comes, or goes."""

    model: str
    size_bytes: int
    used_s: float  # when it was last used or woken
    awake_s: float  # since when it serves
    pinned: bool = False
    busy: bool = False  # has requests in flight, or loads
    leaving: bool = False  # is being unloaded: takes memory until it is gone


@dataclass(frozen=True)
class Plan:
    sleep: tuple[str, ...] = ()
    wake: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)  # models that never fit, and why
    waits: bool = False  # somebody was asked for and has no room yet: plan again soon


def plan(residents: Iterable[Resident], asked: Mapping[str, int], rules: Rules, now: float) -> Plan:
    """`asked`: model -> bytes that it is expected to take, in the order in which they were asked; asleep now."""
    here = list(residents)
    sleep: list[Resident] = [r for r in here if _is_idle(r, rules, now)]
    wake: list[str] = []
    refused: dict[str, str] = {}
    used = sum(r.size_bytes for r in here)
    going = sum(r.size_bytes for r in here if r.leaving) + sum(r.size_bytes for r in sleep)
    waits = False
    for model, size in asked.items():
        if rules.budget_bytes == 0:
            wake.append(model)
            continue
        pinned = sum(r.size_bytes for r in here if r.pinned)
        if size + pinned > rules.budget_bytes:
            refused[model] = (
                f"needs {size} bytes, memory budget {rules.budget_bytes}, pinned models have {pinned}"
            )
            continue
        if used + size <= rules.budget_bytes:
            wake.append(model)
            used += size
            continue
        sleep += _victims(here, sleep, used - going + size - rules.budget_bytes, rules, now)
        waits = True
        break
    if not waits:
        sleep += _victims(here, sleep, used - going - rules.budget_bytes, rules, now)
    return Plan(tuple(r.model for r in sleep), tuple(wake), refused, waits)


def first_asleep(sizes: Mapping[str, int], pinned: frozenset[str], budget_bytes: int) -> set[str]:
    """Models that sleep from the start, because the budget has no room for all: the first ones stay, pinned ones before."""
    if budget_bytes == 0:
        return set()
    left = budget_bytes - sum(size for model, size in sizes.items() if model in pinned)
    asleep: set[str] = set()
    for model, size in sizes.items():
        if model in pinned:
            continue
        if size <= left:
            left -= size
        else:
            asleep.add(model)
    return asleep


def _may_sleep(resident: Resident) -> bool:
    return not (resident.pinned or resident.busy or resident.leaving)


def _is_idle(resident: Resident, rules: Rules, now: float) -> bool:
    return rules.idle_s > 0 and _may_sleep(resident) and now - resident.used_s >= rules.idle_s


def _victims(
    here: list[Resident], chosen: list[Resident], needed: int, rules: Rules, now: float
) -> list[Resident]:
    """The least recently used ones that together have `needed` bytes; none while they would not do."""
    if rules.budget_bytes == 0 or needed <= 0:
        return []
    names = {r.model for r in chosen}
    free = [r for r in here if _may_sleep(r) and r.model not in names and now - r.awake_s >= rules.stay_s]
    out: list[Resident] = []
    for resident in sorted(free, key=lambda r: (r.used_s, r.model)):
        if needed <= 0:
            break
        out.append(resident)
        needed -= resident.size_bytes
    return out
