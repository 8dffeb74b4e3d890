"""A process that makes load: `python -m fastserve.bench.worker`. Messages come in on stdin and go out on stdout.

In: the Target once, then (connections, None) to connect and (0, Step) to run, until the end of stdin.
Out: ("connected", "") or ("connected", why not), ("progress", answered, errors), ("tally", Tally).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from io import BufferedReader, FileIO
from typing import cast

from fastserve.bench import messages
from fastserve.bench.driver import Driver
from fastserve.bench.step_run import run_step


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it closes our stdin
    inbox, outbox = cast(BufferedReader, sys.stdin.buffer), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a stray print must not end up between messages
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve(inbox, outbox)


def _serve(inbox: BufferedReader, outbox: FileIO) -> None:
    def tell(*message: object) -> None:
        messages.write(outbox, message)

    driver = Driver(messages.read(inbox))
    try:
        while True:
            connections, step = messages.read(inbox)
            if step is None:
                try:
                    driver.connect(connections)
                    tell("connected", "")
                except OSError as error:
                    tell("connected", str(error) or type(error).__name__)
            else:
                tell(
                    "tally",
                    run_step(driver, step, lambda answered, errors: tell("progress", answered, errors)),
                )
    finally:
        driver.close()


if __name__ == "__main__":
    main()
