"""Rows of models as text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastserve.cli.model_rows import LOADING, Row

HEADINGS = (
    "MODEL",
    "VERSION",
    "STATE",
    "INSTANCES",
    "MEMORY",
    "GPU MEMORY",
    "REQUESTS",
    "RATE",
    "LABELS",
    "REASON",
)
_RIGHT = {"VERSION", "INSTANCES", "MEMORY", "GPU MEMORY", "REQUESTS", "RATE"}
_COLORS = {"READY": "32", "FAILED": "31", "LOADING": "33", "WARMING": "33", "NEW": "33", "DRAINING": "33"}
_BAR_CELLS = 10


def lines(
    rows: Sequence[Row],
    rates: Mapping[tuple[str, str], float] | None = None,
    *,
    width: int = 0,
    color: bool = False,
) -> list[str]:
    """`rates`: requests a second by (name, version), where they are known. `width`: of the screen, 0 = nothing is cut off.
    Columns in which no row has anything are left out."""
    cells = [_cells(row, rates or {}) for row in rows]
    used = [i for i, name in enumerate(HEADINGS) if i < 3 or any(row[i] for row in cells)]
    widths = {i: max(len(HEADINGS[i]), *(len(row[i]) for row in cells)) for i in used} if cells else {}
    made = [_line([HEADINGS[i] for i in used], used, widths, width)] if cells else []
    for row, texts in zip(rows, cells, strict=True):
        line = _line([texts[i] for i in used], used, widths, width)
        made.append(_colored(line, row, texts, widths) if color else line)
    return made


def summary(rows: Sequence[Row]) -> str:
    """ "3 ready, 1 failed", of versions."""
    states = [row.state.lower() for row in rows if row.state]
    order = ("ready", "loading", "warming", "new", "draining", "failed", "unloaded")
    counts = [f"{states.count(state)} {state}" for state in order if state in states]
    return ", ".join(counts) or "nothing is loaded"


def bytes_text(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB"):
        count_in_unit = count / 1000 ** (("kB", "MB", "GB").index(unit) + 1)
        if count_in_unit < 999.5 or unit == "GB":
            return f"{count_in_unit:.3g} {unit}" if count_in_unit < 999.5 else f"{count_in_unit:,.0f} {unit}"
    raise AssertionError("not reached")


def _cells(row: Row, rates: Mapping[tuple[str, str], float]) -> tuple[str, ...]:
    rate = rates.get(row.key)
    return (
        _plain(row.name),
        row.version,
        _state(row),
        str(row.instances) if row.instances else "",
        bytes_text(row.memory_bytes) if row.memory_bytes else "",
        bytes_text(row.gpu_memory_bytes) if row.gpu_memory_bytes else "",
        f"{row.requests:,}" if row.requests is not None else "",
        f"{rate:,.1f}/s" if rate is not None else "",
        " ".join(sorted(row.labels)),
        _reason(row),
    )


def _state(row: Row) -> str:
    if row.state not in LOADING or row.progress is None:
        return row.state or "-"
    full = round(row.progress * _BAR_CELLS)
    return f"{row.state} [{'#' * full}{'.' * (_BAR_CELLS - full)}]"


def _reason(row: Row) -> str:
    again = f" (again in {row.retry_in_s:.0f} s)" if row.retry_in_s is not None else ""
    return _plain(row.reason) + again


def _plain(text: str) -> str:
    """What a server says must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def _line(texts: Sequence[str], used: Sequence[int], widths: Mapping[int, int], width: int) -> str:
    parts = [
        text.rjust(widths[i]) if HEADINGS[i] in _RIGHT else text.ljust(widths[i])
        for i, text in zip(used, texts, strict=True)
    ]
    line = "  ".join(parts).rstrip()
    return line if not width or len(line) <= width else f"{line[: max(0, width - 1)]}…"


def _colored(line: str, row: Row, texts: Sequence[str], widths: Mapping[int, int]) -> str:
    """The state alone; it stands behind name and version."""
    start = widths[0] + 2 + widths[1] + 2
    end = start + len(texts[2])
    code = _COLORS.get(row.state)
    if code is None or len(line) < end:
        return line
    return f"{line[:start]}\x1b[{code}m{line[start:end]}\x1b[0m{line[end:]}"
