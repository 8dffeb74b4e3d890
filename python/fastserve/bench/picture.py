"""A benchmark as an SVG: latency over throughput, and the distribution of each level's latency. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fastserve import svg

WIDTH, HEIGHT = 1080, 470
_PANEL = 400  # width of a chart
_TOP, _BOTTOM = 122, 395
_LEFT = (80, 620)
_PERCENTS = (0, 50, 90, 99, 99.9, 99.99, 99.999)


@dataclass(frozen=True)
class Curve:
    """Points in the order of the line; `labels` beside them, empty for none."""

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()


class _Chart:
    """One set of axes; y is logarithmic, in ms."""

    def __init__(
        self, left: int, title: str, x_title: str, x: Callable[[float], float], low_ms: float, high_ms: float
    ) -> None:
        """`x`: value -> 0..1"""
        self._left, self._x = left, x
        self._low, self._high = math.log10(low_ms), math.log10(high_ms)
        self.parts = [
            svg.text(left, _TOP - 34, title, weight="600"),
            svg.text(left + _PANEL / 2, _BOTTOM + 42, x_title, anchor="middle", colour=svg.FAINT),
        ]
        labelled = svg.log_ticks(low_ms, high_ms)
        for ms in svg.fine_ticks(low_ms, high_ms):
            self.parts.append(svg.line(left, self.y(ms), left + _PANEL, self.y(ms), svg.FINE_GRID))
        for ms in labelled:
            y = self.y(ms)
            self.parts.append(svg.line(left, y, left + _PANEL, y, svg.GRID))
            self.parts.append(svg.text(left - 8, y + 4, svg.latency_text(ms), anchor="end", colour=svg.FAINT))

    def y(self, ms: float) -> float:
        share = (math.log10(max(ms, 1e-6)) - self._low) / max(self._high - self._low, 1e-9)
        return _BOTTOM - min(1.0, max(0.0, share)) * (_BOTTOM - _TOP)

    def at(self, value: float) -> float:
        return self._left + self._x(value) * _PANEL

    def x_tick(self, value: float, text: str) -> None:
        at = self.at(value)
        self.parts.append(svg.line(at, _BOTTOM, at, _BOTTOM + 5, svg.FAINT))
        self.parts.append(svg.text(at, _BOTTOM + 20, text, anchor="middle", colour=svg.FAINT))

    def curve(self, curve: Curve, colour: str, *, dots: bool) -> None:
        points = [(self.at(x), self.y(y)) for x, y in curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        for at, (x, y) in enumerate(points if dots else ()):
            label = curve.labels[at] if at < len(curve.labels) else ""
            title = f"<title>{escape(label)}</title>" if label else ""
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">{title}</circle>')
        last = points[-1]
        if not dots:
            return
        for (x, y), label in zip(points, curve.labels, strict=False):
            if (x, y) == last or len(points) <= 12:
                self.parts.append(svg.text(x, y - 8, label, anchor="middle", colour=svg.FAINT, size=10))

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        x = float(self._left)
        for name, colour in names:
            self.parts.append(svg.line(x, _TOP - 18, x + 16, _TOP - 18, colour, width=3))
            self.parts.append(svg.text(x + 20, _TOP - 14, name, size=11))
            x += 34 + 6.2 * len(name)


def picture(
    title: str,
    subtitle: str,
    x_title: str,
    throughput: Sequence[Curve],
    distributions: Sequence[Curve],
    by: str,
) -> str:
    """`throughput`: (requests a second, ms), one curve a percentile; `distributions`: (percent, ms), one a level;
    `by`: what their names are.
    The SVG's text. Without any point: a picture that says so."""
    parts = [
        svg.text(_LEFT[0], 34, title, size=18, weight="600"),
        svg.text(_LEFT[0], 54, subtitle, colour=svg.FAINT),
    ]
    values = [y for curve in (*throughput, *distributions) for _, y in curve.points if y > 0]
    if not values:
        parts.append(svg.text(_LEFT[0], 200, "Nothing was answered.", size=16))
        return svg.document(WIDTH, HEIGHT, parts)
    low, high = min(values) * 0.8, max(values) * 1.25
    parts += _throughput_chart(throughput, x_title, low, high) + _distribution_chart(
        distributions, by, low, high
    )
    return svg.document(WIDTH, HEIGHT, parts)


def _throughput_chart(curves: Sequence[Curve], x_title: str, low: float, high: float) -> list[str]:
    most = max(x for curve in curves for x, _ in curve.points) * 1.08 or 1.0
    chart = _Chart(_LEFT[0], "Latency at a throughput", x_title, lambda v: v / most, low, high)
    for value in svg.ticks(0, most):
        chart.x_tick(value, svg.shown(value))
    for at, curve in enumerate(curves):
        # Labels at the lowest line only: the others have the same levels above them.
        labelled = curve if at == 0 else Curve(curve.name, curve.points)
        chart.curve(labelled, svg.SERIES[at % len(svg.SERIES)], dots=True)
    chart.legend([(curve.name, svg.SERIES[at % len(svg.SERIES)]) for at, curve in enumerate(curves)])
    return chart.parts


def percent_place(percent: float) -> float:
    """0..1: every further nine takes as much room as the one before."""
    nines = -math.log10(max(1 - percent / 100, 1e-5))
    return nines / 5


def _distribution_chart(curves: Sequence[Curve], by: str, low: float, high: float) -> list[str]:
    chart = _Chart(_LEFT[1], f"Distribution of the latency by {by}", "percentile", percent_place, low, high)
    for percent in _PERCENTS:
        chart.x_tick(percent, f"{percent:g}")
    for at, curve in enumerate(curves):
        chart.curve(curve, svg.SERIES[at % len(svg.SERIES)], dots=False)
    chart.legend([(curve.name, svg.SERIES[at % len(svg.SERIES)]) for at, curve in enumerate(curves)])
    return chart.parts
