"""fastserve with a busy pure-Python thread: in the server's own process, or in another one beside it.

    busy_server.py --busy thread|process|no  serve --model-repository ... --ready-file PATH

What follows is fastserve's own command line. The busy loop starts when the ready file is there: a start-up beside it would
take long, and is not what is asked. Both ways run the same function; the other process is a child in the same session, so
that the scheduler weighs both alike.
"""

from __future__ import annotations

import argparse
import ctypes
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from fastserve.cli.main import main as fastserve

_PR_SET_PDEATHSIG = 1


def spin() -> None:
    """Pure Python for ever: the interpreter lock is given away only when somebody asks for it, every 5 ms."""
    count = 0
    while True:
        count = (count + 1) & 0xFFFF


def _wait_for(ready_file: Path) -> None:
    while not ready_file.exists():
        time.sleep(0.02)


def _spin_here(ready_file: Path) -> None:
    _wait_for(ready_file)
    spin()


def _spin_elsewhere(ready_file: Path) -> None:
    _wait_for(ready_file)
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import busy_server; busy_server.spin()"
    child = subprocess.Popen([sys.executable, "-c", code], preexec_fn=_end_with_parent, close_fds=True)
    child.wait()


def _end_with_parent() -> None:
    # The death signal follows the thread that forks: this one waits for the child as long as the process lives.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", choices=("thread", "process", "no"), required=True)
    args, words = parser.parse_known_args()
    ready_file = Path(words[words.index("--ready-file") + 1])
    busy = {"thread": _spin_here, "process": _spin_elsewhere}.get(args.busy)
    if busy is not None:
        threading.Thread(target=busy, args=(ready_file,), name="busy", daemon=True).start()
    return fastserve(words)


if __name__ == "__main__":
    sys.exit(main())
