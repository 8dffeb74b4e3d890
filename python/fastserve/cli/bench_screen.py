"""What `fastserve bench` shows: a heading, a table that grows, a summary. rich."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastserve.bench.figures import Level
from fastserve.bench.report import best_of, level_name
from fastserve.bench.run import Mode, Options
from fastserve.bench.search import Search
from fastserve.errors import CODE_NAMES

_PIPED_WIDTH = 132  # of what is not a terminal: nothing is cut off in a file
_ERRORS_SHOWN = 5
_DOUBTS_SHOWN = 3


def significant(value: float) -> str:
    """Three digits: 0.0737, 4.95, 13.3, 250, 1,310."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def rate_text(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def size_text(count: int) -> str:
    if count < 10_000:
        return f"{count:,} bytes"
    return f"{count / 1e3:,.0f} kB" if count < 10_000_000 else f"{count / 1e6:,.0f} MB"


class Screen:
    """The run's audience; a context manager around the measuring."""

    def __init__(self, described: dict[str, Any], options: Options, args: argparse.Namespace) -> None:
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console = Console(highlight=False, width=_PIPED_WIDTH)
        self._described, self._options, self._args = described, options, args
        self._levels: list[Level] = []
        self._now: tuple[str, float, int, int] | None = None  # level, share of its time, answered, errors
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(exc_type, exc, traceback)
        if self._levels:  # also what there is when it was interrupted
            self._console.print(self._table())

    def heading(self) -> None:
        what, options, args = self._described, self._options, self._args
        tensors = ", ".join(f"{i['name']} {i['datatype']}{i['shape']}" for i in what["inputs"])
        title = args.label or f"{what['model']} version {what['version']}"
        self._console.print(
            Text(title, style="bold"), Text(f"  {what['url']}  {what['server']}", style="dim")
        )
        loop = "closed loop" if options.mode == "closed" else f"open loop, {options.arrival} arrivals"
        bound = f" or {options.max_requests:,} requests" if options.max_requests else ""
        self._console.print(
            f"{tensors}, {size_text(what['request_bytes'])} a request ({what['encoding']}). {loop}, "
            f"{options.duration_s:g} s{bound} a level after {options.warmup_s:g} s of warm-up, "
            f"{args.processes} process{'es' if args.processes > 1 else ''}."
        )
        if not what["is_loopback"]:
            warning = (
                f"{what['url']} is another machine: make sure that you may load it, and the network between."
            )
            self._console.print(Text(warning, style="yellow"))
        self._console.print()
        self._console.file.flush()  # into a pipe as well, before a minute of measuring

    def progress(self, mode: Mode, level: float, share: float, answered: int, errors: int) -> None:
        name = f"{level:g} in flight" if mode == "closed" else f"{rate_text(level)}/s"
        self._now = (name, share, answered, errors)
        self._refresh()

    def measured(self, level: Level) -> None:
        self._levels.append(level)
        self._now = None
        self._refresh()

    def _refresh(self) -> None:
        if self._live is None:
            return
        parts: list[Any] = [self._table()] if self._levels else []
        if self._now is not None:
            name, share, answered, errors = self._now
            line = Table.grid(padding=(0, 2))
            shown = f"{answered:,} answered" + (f", [red]{errors:,} errors[/]" if errors else "")
            line.add_row(f"{name:>16}", ProgressBar(total=1.0, completed=share, width=40), shown)
            parts.append(line)
        self._live.update(Group(*parts), refresh=True)

    def _table(self) -> Table:
        is_open = self._levels[0].mode == "open"
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("offered/s" if is_open else "in flight", justify="right")
        table.add_column("answered/s", justify="right")
        for name in ("p50 ms", "p90", "p99", "p99.9", "max"):
            table.add_column(name, justify="right")
        table.add_column("errors", justify="right")
        with_server = any(level.server for level in self._levels)
        if with_server:
            for name in ("server: queue ms", "compute", "rows/batch"):
                table.add_column(name, justify="right", style="cyan")
        if self._options.target_p99_ms:
            table.add_column(f"p99 ≤ {self._options.target_p99_ms:g}", justify="right")
        table.add_column("client CPU", justify="right", style="dim")
        best = best_of(self._levels)
        for level in self._levels:
            table.add_row(*_cells(level, with_server, self._options), style="bold" if level is best else "")
        return table

    def summary(self, levels: Sequence[Level], search: Search | None) -> None:
        """The answer in a sentence; then what to doubt."""
        self._console.print()
        best = best_of(levels)
        if search is not None:
            self._console.print(_search_text(search, self._options, levels))
        elif best is not None:
            where = level_name(best) if best.mode == "closed" else f"{rate_text(best.level)} offered"
            self._console.print(
                f"Most: [bold]{rate_text(best.rate)} requests a second[/] at {where}, "
                f"p50 {significant(best.percentile_ms(50))} ms, p99 {significant(best.percentile_ms(99))} ms."
            )
        else:
            self._console.print("[red]Nothing was answered.[/]")
        doubts = [
            f"! {level_name(level)}: {doubt}"
            for level in levels
            for doubt in (level.client_problem, level.overload)
            if doubt
        ]
        for line in doubts[:_DOUBTS_SHOWN]:
            self._console.print(Text(line, style="yellow"))
        if len(doubts) > _DOUBTS_SHOWN:
            self._console.print(Text(f"! and {len(doubts) - _DOUBTS_SHOWN} more of the kind", style="yellow"))
        self._errors(levels)
        for path in (self._args.json, self._args.picture):
            if path:
                self._console.print(f"Written: {path}", style="dim")

    def _errors(self, levels: Sequence[Level]) -> None:
        counts: dict[tuple[int, str], int] = {}
        for level in levels:
            for code, count in level.tally.errors.items():
                key = (code, level.tally.messages.get(code, ""))
                counts[key] = counts.get(key, 0) + count
        worst = sorted(counts.items(), key=lambda item: -item[1])
        for (code, message), count in worst[:_ERRORS_SHOWN]:
            self._console.print(
                Text(f"✗ {count:,} × {CODE_NAMES.get(code, code)}: {message[:200]}", style="red")
            )


def _cells(level: Level, with_server: bool, options: Options) -> list[Any]:
    tally = level.tally
    answered = tally.latencies.count > 0
    cells: list[Any] = [rate_text(level.level), rate_text(level.rate)]
    for percent in (50, 90, 99, 99.9):
        cells.append(significant(level.percentile_ms(percent)) if answered else "–")
    cells.append(significant(tally.latencies.max_ns / 1e6) if answered else "–")
    bad = level.error_count + tally.unsent
    cells.append(Text(f"{bad:,}", style="red" if bad else "dim"))
    if with_server:
        server = level.server
        if server is None:
            cells += ["–"] * 3
        else:
            cells += [significant(server.queue_us / 1e3), significant(server.compute_us / 1e3)]
            cells.append(f"{server.rows_per_batch:.1f}" if server.rows_per_batch else "–")
    if options.target_p99_ms:
        kept = level.keeps(options.target_p99_ms, options.max_error_share)
        cells.append(Text("kept" if kept else "missed", style="green" if kept else "red"))
    busy = f"{tally.cpu_ns / tally.window_ns:.0%}"
    cells.append(
        Text(f"{busy} !" if level.client_problem else busy, style="yellow" if level.client_problem else "dim")
    )
    return cells


def _search_text(search: Search, options: Options, levels: Sequence[Level]) -> str:
    target = f"p99 ≤ {options.target_p99_ms:g} ms"
    if not search.best and search.lowest_bad:
        return f"[red]No rate keeps {target}[/]: {rate_text(search.lowest_bad)} a second was too much."
    best = next(level for level in levels if level.level == search.best)
    above = f"; {rate_text(search.lowest_bad)} did not" if search.lowest_bad else ""
    return (
        f"{target}: [bold]{rate_text(search.best)} requests a second[/] kept it "
        f"(p99 {significant(best.percentile_ms(99))} ms){above}."
    )
