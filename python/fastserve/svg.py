"""The pieces of a drawn chart: round ticks, text, lines, the document. Pure.

Our own writer instead of matplotlib: a few line charts need no 50 MB of packages, and SVG stays sharp in a README.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

INK, FAINT, GRID, FINE_GRID = "#1f2933", "#616e7c", "#d5dae0", "#f0f2f5"
SERIES = ("#2f6fdb", "#d9660a", "#b3261e", "#1b8a5a", "#7b4bb7", "#0f8b8d", "#a3781c", "#c2377d")


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


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "400",
    colour: str = INK,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{escape(words)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: float = 1, dash: str = "") -> str:
    """`dash`: lengths of strokes and gaps, such as "6 4"."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"{dashes}/>'
    )


def document(width: int, height: int, parts: Sequence[str]) -> str:
    """The whole picture's text, on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="system-ui, Helvetica, Arial, sans-serif">',
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )
