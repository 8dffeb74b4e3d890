"""Lists the models of a running server: state, progress of loads, instances, memory, requests, labels, and why something failed.

Works with Triton and others that speak its API too; what they do not tell is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence

from fastserve.cli import connect
from fastserve.cli.main import CommandError
from fastserve.cli.model_rows import Row, Rows, is_http
from fastserve.cli.model_table import lines, summary

EXAMPLES = """\
examples:
  fastserve models                                         what there is now
  fastserve models --watch                                 as it changes, with requests a second; Ctrl-C ends it
  fastserve models digits --json                           for programs
  fastserve models --url grpc://127.0.0.1:8001             Triton's as well
"""

_HOME, _CLEAR_LINE, _CLEAR_BELOW, _HIDE, _SHOW = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?25l", "\x1b[?25h"
_OTHER_SCREEN, _BACK = "\x1b[?1049h", "\x1b[?1049l"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", metavar="MODEL", nargs="*", help="these alone")
    parser.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="S", help="seconds between two looks of --watch"
    )
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=10.0)
    parser.add_argument("--json", action="store_true", help="for programs; with --watch one line a look")


def run(args: argparse.Namespace) -> int:
    if not 0.1 <= args.interval <= 3600:
        raise CommandError(f"--interval: got {args.interval:g}, want 0.1 to 3600")
    with connect.server(args) as server:
        rows = Rows(server, own=is_http(args))
        if args.watch:
            return _watch(args, rows)
        found = _wanted(rows.read(), args.models)
    if args.json:
        print(json.dumps([row.json() for row in found], indent=2))
    else:
        print("\n".join(lines(found, color=sys.stdout.isatty())) or "no models")
    return 0


def _wanted(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    known = {row.name for row in rows}
    if missing := [name for name in names if name not in known]:
        raise CommandError(f"the server has no model '{missing[0]}'", connect.REFUSED)
    return [row for row in rows if not names or row.name in names]


def _watch(args: argparse.Namespace, rows: Rows) -> int:
    is_screen = sys.stdout.isatty() and not args.json
    before: dict[tuple[str, str], tuple[float, int]] = {}
    if is_screen:
        sys.stdout.write(_OTHER_SCREEN + _HIDE)
    try:
        while True:
            now = time.monotonic()
            found = _wanted(rows.read(), args.models)
            rates = rates_of(found, before, now)
            before = {row.key: (now, row.requests) for row in found if row.requests is not None}
            if args.json:
                print(json.dumps([_with_rate(row, rates) for row in found]), flush=True)
            else:
                _show(found, rates, args.url, is_screen)
            time.sleep(max(0.0, args.interval - (time.monotonic() - now)))
    except KeyboardInterrupt:
        return 0
    finally:
        if is_screen:
            sys.stdout.write(_SHOW + _BACK)
            sys.stdout.flush()


def rates_of(
    rows: Sequence[Row], before: dict[tuple[str, str], tuple[float, int]], now: float
) -> dict[tuple[str, str], float]:
    """Requests a second since the look before; a version that was loaded again begins anew."""
    rates = {}
    for row in rows:
        if row.requests is not None and row.key in before:
            then, count = before[row.key]
            if now > then and row.requests >= count:
                rates[row.key] = (row.requests - count) / (now - then)
    return rates


def _with_rate(row: Row, rates: dict[tuple[str, str], float]) -> dict[str, object]:
    rate = rates.get(row.key)
    return row.json() | ({} if rate is None else {"requests_per_second": round(rate, 3)})


def _show(rows: Sequence[Row], rates: dict[tuple[str, str], float], url: str, is_screen: bool) -> None:
    if not is_screen:
        print("\n".join(lines(rows, rates)) + "\n", flush=True)
        return
    columns, height = shutil.get_terminal_size()
    table = lines(rows, rates, width=columns, color=True)
    room = max(1, height - 3)
    shown = table if len(table) <= room else [*table[: room - 1], f"... and {len(table) - room + 1} more"]
    text = [f"{url}  {summary(rows)}  {time.strftime('%H:%M:%S')}"[:columns], "", *shown]
    sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in text) + _CLEAR_BELOW)
    sys.stdout.flush()
