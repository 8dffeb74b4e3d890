"""Has a running server read its repositories again: new and changed versions are loaded, what is gone is unloaded, and what
serves goes on serving meanwhile. In mode explicit only models that are loaded are looked at. SIGHUP does the same.
"""

from __future__ import annotations

import argparse
import os
import signal
import time

from fastserve.cli import connect
from fastserve.cli.load_progress import LOOK_S, LoadProgress
from fastserve.cli.main import CommandError
from fastserve.cli.model_rows import LOADING, Row, Rows, is_http

EXAMPLES = """\
examples:
  fastserve reload                                         and wait until everything is loaded
  fastserve reload --no-wait
  fastserve reload --pid 4711                              by signal; the server's log says what came of it
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="do not wait for loads")
    parser.add_argument("--pid", type=int, metavar="PID", help="send SIGHUP to this process instead")
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=600.0)


def run(args: argparse.Namespace) -> int:
    if args.pid is not None:
        return _signal(args.pid)
    if not is_http(args):
        raise CommandError(f"--url: got '{args.url}', want the REST port (http://host:port)")
    with connect.server(args) as server:
        rows = Rows(server, own=True)
        before = {row.key: row for row in rows.read()}
        changed = server.reload()
        with LoadProgress(rows.read):
            after = rows.read() if args.no_wait else _settled(rows, time.monotonic() + args.timeout)
    for line in differences(before, after):
        print(line)
    if not changed:
        print("nothing has changed")
    return connect.REFUSED if any(row.state == "FAILED" for row in after) else 0


def _signal(pid: int) -> int:
    if pid < 1:
        raise CommandError(f"--pid: got {pid}, want a process id")
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise CommandError(f"--pid {pid}: {error.strerror}", connect.REFUSED) from None
    return 0


def _settled(rows: Rows, until: float) -> list[Row]:
    while True:
        found = rows.read()
        if not any(row.state in LOADING for row in found):
            return found
        if time.monotonic() > until:
            raise CommandError("models are still loading: see `fastserve models --watch`", connect.REFUSED)
        time.sleep(LOOK_S)


def differences(before: dict[tuple[str, str], Row], after: list[Row]) -> list[str]:
    """What is another state now, and everything that failed."""
    lines = []
    for row in after:
        was = before.get(row.key)
        text = row.name + (f" version {row.version}" if row.version else "")
        if row.state == "FAILED":
            lines.append(f"{text} failed: {row.reason}")
        elif row.state == "UNLOADED" and was is None and row.reason:  # it waits, or sleeps
            lines.append(f"{text}: {row.reason}")
        elif row.state and (was is None or was.state != row.state):
            lines.append(f"{text} is {row.state.lower()}")
        elif row.reason and (was is None or was.reason != row.reason):
            lines.append(f"{text}: {row.reason}")
    now = {row.key for row in after}
    lines += [
        f"{name} version {version} is gone"
        for name, version in before
        if version and (name, version) not in now
    ]
    return lines
