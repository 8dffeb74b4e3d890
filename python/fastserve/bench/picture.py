"""A benchmark as an SVG: latency over throughput, and the distribution of each level's latency. Pure.

Our own writer instead of matplotlib: two line charts need no 50 MB of packages, and SVG stays sharp in a README.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1080, 470
_PANEL = 400  # width of a chart
_TOP, _BOTTOM = 122, 395
_LEFT = (80, 620)
_INK, _FAINT, _GRID = "#1f2933", "#616e7c", "#d5dae0"
_FINE_GRID = "#f0f2f5"
_SERIES = ("#2f6fdb", "#d9660a", "#b3261e", "#1b8a5a", "#7b4bb7", "#0f8b8d", "#a3781c", "#c2377d")
_PERCENTS = (0, 50, 90, 99, 99.9, 99.99, 99.999)


@dataclass(frozen=True)
class Curve:
    """Points in the order of the line; `labels` beside them, empty for none."""

    name: str
    points: Sequence[tuple[float, float]]
    labels: Sequence[str] = ()


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from `low` to `high`."""
    span = max(high - low, 1e-12)
    rough = span / wanted
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 of every power of ten inside; powers of ten alone where that were too many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if high / low < 200 else (1,)
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def fine_ticks(low: float, high: float) -> list[float]:
    """Every unit of every power of ten inside."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [unit * 10.0**power for power in range(first, last + 1) for unit in range(1, 10)]
    return [value for value in found if low <= value <= high]


def shown(value: float) -> str:
    """12k, 0.05, 3"""
    if value >= 1000:
        return f"{value / 1000:g}k"
    return f"{value:.6g}"


def latency_text(ms: float) -> str:
    return f"{ms:g} ms" if ms >= 1 else f"{ms * 1000:g} µs"


class _Chart:
    """One set of axes; y is logarithmic, in ms."""

    def __init__(
        self, left: int, title: str, x_title: str, x: Callable[[float], float], low_ms: float, high_ms: float
    ) -> None:
        """`x`: value -> 0..1"""
        self._left, self._x = left, x
        self._low, self._high = math.log10(low_ms), math.log10(high_ms)
        self.parts = [
            _text(left, _TOP - 34, title, weight="600"),
            _text(left + _PANEL / 2, _BOTTOM + 42, x_title, anchor="middle", colour=_FAINT),
        ]
        labelled = log_ticks(low_ms, high_ms)
        for ms in fine_ticks(low_ms, high_ms):
            self.parts.append(_line(left, self.y(ms), left + _PANEL, self.y(ms), _FINE_GRID))
        for ms in labelled:
            y = self.y(ms)
            self.parts.append(_line(left, y, left + _PANEL, y, _GRID))
            self.parts.append(_text(left - 8, y + 4, latency_text(ms), anchor="end", colour=_FAINT))

    def y(self, ms: float) -> float:
        share = (math.log10(max(ms, 1e-6)) - self._low) / max(self._high - self._low, 1e-9)
        return _BOTTOM - min(1.0, max(0.0, share)) * (_BOTTOM - _TOP)

    def at(self, value: float) -> float:
        return self._left + self._x(value) * _PANEL

    def x_tick(self, value: float, text: str) -> None:
        at = self.at(value)
        self.parts.append(_line(at, _BOTTOM, at, _BOTTOM + 5, _FAINT))
        self.parts.append(_text(at, _BOTTOM + 20, text, anchor="middle", colour=_FAINT))

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
                self.parts.append(_text(x, y - 8, label, anchor="middle", colour=_FAINT, size=10))

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        x = float(self._left)
        for name, colour in names:
            self.parts.append(_line(x, _TOP - 18, x + 16, _TOP - 18, colour, width=3))
            self.parts.append(_text(x + 20, _TOP - 14, name, size=11))
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
    parts = [_text(_LEFT[0], 34, title, size=18, weight="600"), _text(_LEFT[0], 54, subtitle, colour=_FAINT)]
    values = [y for curve in (*throughput, *distributions) for _, y in curve.points if y > 0]
    if not values:
        parts.append(_text(_LEFT[0], 200, "Nothing was answered.", size=16))
        return _svg(parts)
    low, high = min(values) * 0.8, max(values) * 1.25
    parts += _throughput_chart(throughput, x_title, low, high) + _distribution_chart(
        distributions, by, low, high
    )
    return _svg(parts)


def _throughput_chart(curves: Sequence[Curve], x_title: str, low: float, high: float) -> list[str]:
    most = max(x for curve in curves for x, _ in curve.points) * 1.08 or 1.0
    chart = _Chart(_LEFT[0], "Latency at a throughput", x_title, lambda v: v / most, low, high)
    for value in ticks(0, most):
        chart.x_tick(value, shown(value))
    for at, curve in enumerate(curves):
        # Labels at the lowest line only: the others have the same levels above them.
        labelled = curve if at == 0 else Curve(curve.name, curve.points)
        chart.curve(labelled, _SERIES[at % len(_SERIES)], dots=True)
    chart.legend([(curve.name, _SERIES[at % len(_SERIES)]) for at, curve in enumerate(curves)])
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
        chart.curve(curve, _SERIES[at % len(_SERIES)], dots=False)
    chart.legend([(curve.name, _SERIES[at % len(_SERIES)]) for at, curve in enumerate(curves)])
    return chart.parts


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "400",
    colour: str = _INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _svg(parts: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" font-family="system-ui, Helvetica, Arial, sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )
