"""What a model's batch policy believes and did, in sentences that an operator understands. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastserve import _core

# Reason of the policy (csrc/batch/policy.h) -> why a batch ran when it did.
_BECAUSE = {
    "full": "no more rows fitted",
    "preferred size": "a preferred size was reached",
    "delay passed": "the queue delay was over",
    "deadline": "waiting longer would have missed a deadline or the target",
    "no gain": "that was all there was, and waiting for company would not have paid",
    "cheapest": "a larger batch would have cost more for each row",
    "explore": "a larger size was tried, so that its cost does not go stale",
}


def sentences(view: _core.Scheduling) -> list[str]:
    """One fact each, the most general first."""
    return [
        *_limits(view),
        *_target(view),
        *_costs(view),
        *_load(view),
        *_minute(view),
        *_priorities(view),
        *_refusals(view),
    ]


def milliseconds(ns: float) -> str:
    """Three digits: 7.53 ms, 812 µs, 41.2 s"""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns / 1e3:.3g} µs"


def costs_of(view: _core.Scheduling) -> list[_core.SizeCost]:
    """The sizes that were run, ascending; of several instances the one with the most samples."""
    best: dict[int, _core.SizeCost] = {}
    for instance in view["instances"]:
        for cost in instance["costs"]:
            known = best.get(cost["rows"])
            if known is None or cost["samples"] > known["samples"]:
                best[cost["rows"]] = cost
    return [best[rows] for rows in sorted(best)]


def capacity_per_s(view: _core.Scheduling) -> float:
    """Rows that all instances could do at the best size; 0: nothing is known."""
    rates = [cost["rows"] * 1e9 / cost["mean_ns"] for cost in costs_of(view) if cost["mean_ns"]]
    return max(rates, default=0.0) * len(view["instances"])


def _count(number: float, one: str, many: str = "") -> str:
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _limits(view: _core.Scheduling) -> Iterator[str]:
    instances = _count(len(view["instances"]), "instance")
    if view["max_rows"] <= 1:
        yield f"Every request runs alone, on {instances}."
        return
    sizes = ""
    if view["prepared_rows"]:
        padded = "; others run as the next larger one" if view["pads"] else ""
        sizes = f", prepared for {_listed(view['prepared_rows'])}{padded}"
    yield f"Batches of up to {view['max_rows']} rows on {instances}{sizes}."
    if view["max_queue_delay_ns"]:
        until = f" or {_listed(view['preferred_rows'])} rows wait" if view["preferred_rows"] else ""
        delay = milliseconds(view["max_queue_delay_ns"])
        yield f"max_queue_delay holds a batch back until its first request waited {delay}{until}."


def _queue_limit(view: _core.Scheduling) -> str:
    requests, age = _count(view["max_queue_requests"], "request"), view["max_queue_age_ns"]
    return f"{requests}, or as many as are served within {milliseconds(age)}" if age else requests


def _target(view: _core.Scheduling) -> Iterator[str]:
    target = view["target_p99_ns"]
    if not target:
        yield (
            "No latency target: a free instance runs what waits, unless company is expected soon enough to pay. "
            f"Only the queue limit refuses: {_queue_limit(view)}."
        )
        return
    yield (
        f"Target: p99 within {milliseconds(target)}. A request that is expected to miss its own deadline, or the "
        "target by half when it has none, is refused at once."
    )
    costs = costs_of(view)
    if costs and costs[0]["high_ns"] > target:
        rows, high = costs[0]["rows"], milliseconds(costs[0]["high_ns"])
        yield (
            f"The target cannot be met: {_count(rows, 'row')} alone takes {high} at the 95th percentile. Raise the "
            "target, or give the model more threads."
        )


def _costs(view: _core.Scheduling) -> Iterator[str]:
    costs = [cost for cost in costs_of(view) if cost["mean_ns"]]
    if not costs:
        yield "Nothing was run yet, so nothing is known about its cost."
        return
    first = costs[0]
    best = max(costs, key=lambda cost: cost["rows"] / cost["mean_ns"])
    text = (
        f"{_count(first['rows'], 'row')} takes {milliseconds(first['mean_ns'])} "
        f"(95th percentile {milliseconds(first['high_ns'])})"
    )
    if best is first or view["max_rows"] <= 1:
        yield text + (
            "." if view["max_rows"] <= 1 else "; larger batches serve no more rows per second than that."
        )
        return
    gain = best["rows"] / best["mean_ns"] / (first["rows"] / first["mean_ns"])
    yield (
        f"{text}, {best['rows']} rows {milliseconds(best['mean_ns'])}: the best size, {gain:.2g} times the rows per "
        "second of the smallest."
    )


def _load(view: _core.Scheduling) -> Iterator[str]:
    capacity, rate = capacity_per_s(view), view["arrivals_per_s"]
    waiting = f"{_count(view['waiting'], 'request')} {'waits' if view['waiting'] == 1 else 'wait'} now"
    if rate < 0.5:
        yield f"Hardly anything arrives at present; {waiting}."
    elif capacity:
        share = 100 * rate / capacity
        text = f"{_count(rate, 'row')} a second arrive, {capacity:,.0f} could be served ({share:.0f} %); {waiting}."
        yield text + (" That is more than there is room for." if share > 100 else "")
    else:
        yield f"{_count(rate, 'row')} a second arrive; {waiting}."


def _minute(view: _core.Scheduling) -> Iterator[str]:
    batches = sum(view["batches"].values())
    if not batches:
        yield "No batch ran in the last minute."
        return
    rows = sum(int(size) * count for size, count in view["batches"].items())
    yield f"In the last minute {_count(batches, 'batch', 'batches')} ran, of {rows / batches:.3g} rows on average:"
    for reason, count in _largest(view["decisions"]):
        yield f"- {100 * count / max(sum(view['decisions'].values()), 1):.0f} % because {_BECAUSE.get(reason, reason)}"
    if view["waits"]:
        yield f"- {_count(view['waits'], 'time')} the policy waited for company first"


def _priorities(view: _core.Scheduling) -> Iterator[str]:
    waiting = [level for level in view["levels"] if level["waiting"]]
    if len(view["levels"]) > 1 and waiting:
        parts = [f"{level['waiting']} of priority {level['priority']}" for level in waiting]
        yield f"Waiting: {', '.join(parts)}. A smaller number goes first; every 16th batch begins with the oldest."


def _refusals(view: _core.Scheduling) -> Iterator[str]:
    for reason, count in _largest(view["refusals"]):
        yield f"{_count(count, 'request')} refused in the last minute: {reason.replace('_', ' ')}."


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])
