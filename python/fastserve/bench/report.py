"""A finished run as a JSON document and as a picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastserve.bench.figures import Level, level_dict
from fastserve.bench.picture import Curve, picture

SCHEMA = "fastserve.bench/1"  # the number grows when a reader of the old one would go wrong
_PICTURED = (50.0, 95.0, 99.0)
_CURVE_PERCENTS = (0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999)
_MAX_DISTRIBUTIONS = 6


def document(
    *,
    target: Mapping[str, Any],
    load: Mapping[str, Any],
    machine: Mapping[str, Any],
    levels: Sequence[Level],
    search: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    best = best_of(levels)
    return {
        "schema": SCHEMA,
        "target": dict(target),
        "load": dict(load),
        "machine": dict(machine),
        "levels": [level_dict(level) for level in levels],
        "best": None if best is None else {"level": best.level, "requests_per_second": best.rate},
        "search": None if search is None else dict(search),
    }


def best_of(levels: Sequence[Level]) -> Level | None:
    """The one that answered most."""
    return max((level for level in levels if level.rate > 0), key=lambda level: level.rate, default=None)


def level_name(level: Level) -> str:
    return f"{level.level:g} in flight" if level.mode == "closed" else f"{level.level:.4g}/s"


def drawn(title: str, subtitle: str, levels: Sequence[Level]) -> str:
    """SVG."""
    answered = sorted(
        (level for level in levels if level.tally.latencies.count), key=lambda level: level.level
    )
    labels = [f"{level.level:g}" if level.mode == "closed" else "" for level in answered]
    curves = [
        Curve(f"p{percent:g}", [(level.rate, level.percentile_ms(percent)) for level in answered], labels)
        for percent in _PICTURED
    ]
    distributions = [
        Curve(
            f"{level.level:.4g}",
            [(p, level.percentile_ms(p)) for p in _percents(level.tally.latencies.count)],
        )
        for level in _spread(answered)
    ]
    said = "answered requests a second (at the points: requests in flight)"
    by = "requests in flight" if any(labels) else "requests offered a second"
    x_title = said if any(labels) else "answered requests a second"
    return picture(title, subtitle, x_title, curves if answered else [], distributions, by)


def _percents(count: int) -> list[float]:
    """Those that so many requests can tell apart from the maximum."""
    return [percent for percent in _CURVE_PERCENTS if (100 - percent) / 100 * count >= 1 or percent <= 50]


def _spread(levels: Sequence[Level]) -> list[Level]:
    """At most six, first and last among them."""
    if len(levels) <= _MAX_DISTRIBUTIONS:
        return list(levels)
    step = (len(levels) - 1) / (_MAX_DISTRIBUTIONS - 1)
    return [levels[round(number * step)] for number in range(_MAX_DISTRIBUTIONS)]
