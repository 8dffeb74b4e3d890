"""Latency and throughput against batch size, and which sizes ran in the last minute, as an SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fastserve import _core, svg
from fastserve.frontends.scheduling_words import costs_of, milliseconds

_WIDTH, _HEIGHT = 1080, 430
_PANEL, _TOP, _BOTTOM = 400, 105, 355
_LEFT = (90, 620)
_MEAN, _HIGH, _BARS, _TARGET = svg.SERIES[0], svg.SERIES[1], "#dbe4f3", svg.SERIES[2]

Point = tuple[float, float]


def picture(view: _core.Scheduling) -> str:
    """The SVG's text. Without any cost: a picture that says so."""
    title = f"{view['model']}, version {view['version']}: what a batch costs"
    parts = [svg.text(_LEFT[0], 32, title, size=18, weight="600")]
    costs = [cost for cost in costs_of(view) if cost["mean_ns"]]
    if not costs:
        parts.append(svg.text(_LEFT[0], 200, "Nothing was run yet.", size=16))
        return svg.document(_WIDTH, _HEIGHT, parts)
    x = _rows_axis([cost["rows"] for cost in costs])
    parts += _latency(view, costs, x) + _throughput(view, costs, x)
    return svg.document(_WIDTH, _HEIGHT, parts)


def _rows_axis(rows: Sequence[int]) -> Callable[[float], float]:
    """rows -> 0..1, logarithmic: sizes double."""
    low, high = math.log2(rows[0]), math.log2(rows[-1])
    span = max(high - low, 1.0)
    return lambda value: 0.05 + 0.9 * (math.log2(max(value, 1)) - low) / span


class _Panel:
    """Axes; both from 0 at the bottom left."""

    def __init__(self, left: int, title: str, most: float, label: Callable[[float], str]) -> None:
        self._left, self._most = left, most or 1.0
        self.parts = [svg.text(left, _TOP - 40, title, weight="600")]
        for value in svg.ticks(0, self._most):
            y = self.y(value)
            self.parts.append(svg.line(left, y, left + _PANEL, y, svg.GRID))
            self.parts.append(svg.text(left - 8, y + 4, label(value), anchor="end", colour=svg.FAINT))
        at = left + _PANEL / 2
        self.parts.append(svg.text(at, _BOTTOM + 42, "rows of a batch", anchor="middle", colour=svg.FAINT))

    def y(self, value: float) -> float:
        return _BOTTOM - min(value / self._most, 1.0) * (_BOTTOM - _TOP)

    def at(self, share: float) -> float:
        return self._left + share * _PANEL

    def rows(self, costs: Sequence[_core.SizeCost], x: Callable[[float], float]) -> None:
        last = -math.inf
        for cost in costs:
            at = self.at(x(cost["rows"]))
            if at - last >= 22:  # labels must not overlap
                self.parts.append(
                    svg.text(at, _BOTTOM + 20, str(cost["rows"]), anchor="middle", colour=svg.FAINT)
                )
                last = at

    def curve(self, points: Sequence[Point], colour: str) -> None:
        places = [(self.at(x), self.y(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        self.parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        x = float(self._left)
        for name, colour in names:
            self.parts.append(svg.line(x, _TOP - 20, x + 16, _TOP - 20, colour, width=4))
            self.parts.append(svg.text(x + 21, _TOP - 16, name, size=11))
            x += 38 + 6.2 * len(name)


def _latency(
    view: _core.Scheduling, costs: Sequence[_core.SizeCost], x: Callable[[float], float]
) -> list[str]:
    target = view["target_p99_ns"]
    most = max(max(cost["high_ns"], cost["mean_ns"]) for cost in costs)
    panel = _Panel(_LEFT[0], "Time of a batch", max(most, target) * 1.1, milliseconds)
    legend = [("mean", _MEAN), ("95th percentile", _HIGH)]
    if target:
        y = panel.y(target)
        panel.parts.append(svg.line(_LEFT[0], y, _LEFT[0] + _PANEL, y, _TARGET))
        legend.append(("target", _TARGET))
    panel.curve([(x(cost["rows"]), cost["high_ns"]) for cost in costs], _HIGH)
    panel.curve([(x(cost["rows"]), cost["mean_ns"]) for cost in costs], _MEAN)
    panel.rows(costs, x)
    panel.legend(legend)
    return panel.parts


def _throughput(
    view: _core.Scheduling, costs: Sequence[_core.SizeCost], x: Callable[[float], float]
) -> list[str]:
    rates = [cost["rows"] * 1e9 / cost["mean_ns"] for cost in costs]
    title = "Rows per second, and the batches of the last minute"
    panel = _Panel(_LEFT[1], title, max(rates) * 1.1, svg.shown)
    total = sum(view["batches"].values())
    low, high = costs[0]["rows"], costs[-1]["rows"]
    for rows, count in view["batches"].items():
        if not low <= int(rows) <= high:
            continue
        height = (_BOTTOM - _TOP) * count / total
        at = panel.at(x(int(rows)))
        panel.parts.append(
            f'<rect x="{at - 6:.1f}" y="{_BOTTOM - height:.1f}" width="12" height="{height:.1f}" fill="{_BARS}">'
            f"<title>{rows} rows: {count} batches ({100 * count / total:.0f} %)</title></rect>"
        )
    panel.curve([(x(cost["rows"]), rate) for cost, rate in zip(costs, rates, strict=True)], _MEAN)
    panel.rows(costs, x)
    panel.legend([("rows per second", _MEAN), ("share of batches (full height: all)", _BARS)])
    return panel.parts
