"""Shows every setting, its value, where the value came from and what it means."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

from fastserve.cli.settings import add_flags, resolved

if TYPE_CHECKING:
    from fastserve.config.resolve import Resolved

EXAMPLES = """\
examples:
  fastserve config show --json
  FASTSERVE_SERVER_HTTP_PORT=9000 fastserve config show --config fastserve.yaml --log-level debug
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["show"], help="the only thing that there is to do")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_flags(parser)


def run(args: argparse.Namespace) -> int:
    result = resolved(args)
    if args.json:
        print(json.dumps(_plain(result), indent=2))
    elif sys.stdout.isatty():
        _print_table(result)
    else:
        _print_lines(result)
    return 0


def _shown(value: Any) -> Any:
    """As plain data; passwords and signatures of URLs are not shown."""
    from fastserve.config.resolve import as_plain
    from fastserve.lifecycle.remote.urls import is_remote, redacted

    plain = as_plain(value)
    if isinstance(plain, list):
        return [redacted(one) if is_remote(one) else one for one in plain]
    return redacted(plain) if is_remote(plain) else plain


def _plain(result: Resolved) -> dict[str, Any]:
    return {
        path: {
            "value": _shown(setting.value),
            "source": setting.source.kind,
            "where": setting.source.where,
            "description": setting.option.about.description,
            "flag": setting.option.flags[0],
            "environment": setting.option.env,
        }
        for path, setting in result.settings.items()
    }


def _text(value: Any) -> str:
    plain = _shown(value)
    if plain is None or plain == []:
        return "-"
    if isinstance(plain, bool):
        return str(plain).lower()
    return ", ".join(plain) if isinstance(plain, list) else str(plain)


def _print_table(result: Resolved) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("setting", "value", "source", "description"):
        table.add_column(title, overflow="fold")
    for path, setting in result.settings.items():
        style = "" if setting.source.kind == "default" else "bold"
        table.add_row(
            Text(path, style),
            Text(_text(setting.value), style),
            Text(str(setting.source), style),
            Text(setting.option.about.description),
        )
    Console(width=shutil.get_terminal_size().columns).print(table)


def _print_lines(result: Resolved) -> None:
    rows = [
        (path, _text(s.value), str(s.source), s.option.about.description)
        for path, s in result.settings.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]))
