"""p99 against throughput, one small chart per device and trace. Pure; the style of `fastserve bench`."""

from __future__ import annotations

import importlib.util
import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any


def _shapes() -> Any:
    """fastserve/svg.py by its path: the simulator runs where the package is not built."""
    path = Path(__file__).resolve().parents[2] / "python" / "fastserve" / "svg.py"
    spec = importlib.util.spec_from_file_location("svg", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


svg = _shapes()
Point = dict[str, Any]

_WIDTH, _HEIGHT = 300, 210  # of a chart
_MARGIN_X, _MARGIN_Y, _TOP = 70, 62, 76
# The setting that is the best over the loads of a chart stands for its rule.
_COLOURS = {
    "fastserve": "#2f6fdb",
    "none": "#7b4bb7",
    "Triton": "#1b8a5a",
    "TF Serving": "#d9660a",
    "BentoML": "#b3261e",
}
_DASHES = {"TF Serving": "6 4"}  # often on top of Triton's


def picture(points: Sequence[Point]) -> str:
    """The SVG's text."""
    groups: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        if point["trace"] not in ("overload", "priorities"):
            groups[point["device"], point["trace"]].append(point)
    devices = list(dict.fromkeys(device for device, _ in groups))
    traces = list(dict.fromkeys(trace for _, trace in groups))
    width = _MARGIN_X + len(traces) * (_WIDTH + _MARGIN_X)
    height = _TOP + len(devices) * (_HEIGHT + _MARGIN_Y)
    parts = [svg.text(_MARGIN_X, 28, "p99 against throughput, in virtual time", size=17, weight="600")]
    x = float(_MARGIN_X)
    for name, colour in _COLOURS.items():
        parts.append(svg.line(x, 46, x + 18, 46, colour, width=3, dash=_DASHES.get(name, "")))
        parts.append(svg.text(x + 23, 50, name))
        x += 50 + 7 * len(name)
    parts.append(
        svg.text(
            x,
            50,
            "each rule with its best setting for the trace; what BentoML drops at high load is not in its p99",
            colour=svg.FAINT,
        )
    )
    for row, device in enumerate(devices):
        for column, trace in enumerate(traces):
            here = groups.get((device, trace), [])
            if here:
                parts += _chart(
                    _MARGIN_X + column * (_WIDTH + _MARGIN_X),
                    _TOP + row * (_HEIGHT + _MARGIN_Y),
                    device,
                    trace,
                    here,
                )
    return str(svg.document(width, height, parts))


def _curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    settings: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        settings[point["family"], point["scheduler"]].append(point)
    out: dict[str, list[Point]] = {}
    cost: dict[str, float] = {}
    for (family, name), curve in settings.items():
        if family == "fastserve" and name != "fastserve":
            continue
        total = sum(math.log(max(p["p99_ms"], 1e-6)) + 10 * p["dropped"] for p in curve)
        if family not in cost or total < cost[family]:
            cost[family], out[family] = total, sorted(curve, key=lambda p: p["load"])
    return out


def _chart(left: float, top: float, device: str, trace: str, points: Sequence[Point]) -> list[str]:
    curves = _curves(points)
    ours = curves["fastserve"]
    most = max(p["served_per_s"] for curve in curves.values() for p in curve) * 1.05
    low = min(p["p99_ms"] for curve in curves.values() for p in curve) * 0.8
    high = max(max(p["p99_ms"] for p in ours) * 4, low * 10)  # what leaves the chart is far worse
    low_log, span = math.log10(low), math.log10(high / low)

    def place(p: Point) -> tuple[float, float]:
        share = (math.log10(max(p["p99_ms"], low)) - low_log) / span
        return left + p["served_per_s"] / most * _WIDTH, top + _HEIGHT - min(share, 1.0) * _HEIGHT

    title = f"{device}, {'clients in a closed loop' if trace == 'closed' else trace}"
    parts = [svg.text(left, top - 8, title, weight="600")]
    decades = range(math.floor(low_log), math.ceil(low_log + span) + 1)
    for ms in (factor * 10.0**power for power in decades for factor in (1, 2, 5)):
        if low <= ms <= high:
            y = top + _HEIGHT - (math.log10(ms) - low_log) / span * _HEIGHT
            parts.append(svg.line(left, y, left + _WIDTH, y, svg.GRID))
            parts.append(svg.text(left - 6, y + 4, f"{ms:g} ms", anchor="end", colour=svg.FAINT, size=10))
    for share in (0.0, 0.5, 1.0):
        at = left + share / 1.05 * _WIDTH
        parts.append(
            svg.text(
                at,
                top + _HEIGHT + 16,
                f"{share * most / 1.05:,.0f}/s",
                anchor="middle",
                colour=svg.FAINT,
                size=10,
            )
        )
    for family in reversed(_COLOURS):
        if family not in curves:
            continue
        places = [place(p) for p in curves[family]]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = f' stroke-dasharray="{_DASHES[family]}"' if family in _DASHES else ""
        colour = _COLOURS[family]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for (x, y), p in zip(places, curves[family], strict=True):
            words = (
                f"{p['scheduler']}, load {p['load']:g}: {p['served_per_s']:.0f}/s, p99 {p['p99_ms']:.3g} ms"
            )
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"><title>{escape(words)}</title></circle>'
            )
    return parts
