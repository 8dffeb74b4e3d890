"""Servers and clients as processes of their own: pinned, bounded in time, ended by pid and never by name."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_S = 300.0  # a server compiles its models first, or has a thousand of them
STOP_S = 15.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BenchError(Exception):
    """A tool failed; the message says which and how."""


def _child_setup(cpus: Sequence[int] | None) -> Callable[[], None]:
    def setup() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # if the runner is killed, nothing of it stays behind
        if cpus:
            os.sched_setaffinity(0, cpus)

    return setup


@dataclass
class Server:
    name: str
    process: subprocess.Popen[bytes]
    addresses: dict[str, str]  # of its ready file: "grpc", "http", ...
    log: Path

    @property
    def pids(self) -> str:
        """The process and its children, as the load clients want them."""
        return ",".join(str(pid) for pid in [self.process.pid, *_descendants(self.process.pid)])


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def serving(name: str, command: Sequence[str | Path], cpus: Sequence[int] | None) -> Iterator[Server]:
    """Runs `command --ready-file PATH` until the end of the block."""
    part = re.sub(r"\W+", "-", name)
    with tempfile.TemporaryDirectory(prefix=f"fastserve-bench-{part}-") as folder:
        ready, log = Path(folder) / "ready.json", Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*map(str, command), "--ready-file", str(ready)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # not a session: that would be a scheduling group against the client's (sched(7), autogroup)
                preexec_fn=_child_setup(cpus),
            )
        try:
            yield Server(name, process, _await_ready(name, process, ready, log), log)
            if process.poll() is not None:
                raise BenchError(
                    f"{name} ended during the run (exit code {process.returncode}):\n{_tail(log)}"
                )
        finally:
            stop(process)


def _await_ready(name: str, process: subprocess.Popen[bytes], ready: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{name} ended with exit code {process.returncode}:\n{_tail(log)}")
        with contextlib.suppress(OSError, ValueError):  # not there yet, or only half of it
            return dict(json.loads(ready.read_text()))
        time.sleep(0.05)
    raise BenchError(f"{name} was not ready within {READY_S:.0f} s:\n{_tail(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the server, then SIGKILL to the process group that it leads (its worker processes)."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_tool(
    command: Sequence[str | Path], cpus: Sequence[int] | None, limit_s: float, allow_failure: bool = False
) -> dict[str, Any]:
    """Runs a tool that prints one JSON object on its last line."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=limit_s, preexec_fn=_child_setup(cpus), check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"no end within {limit_s:.0f} s: {' '.join(words)}") from error
    lines = done.stdout.strip().splitlines()
    if (done.returncode != 0 and not allow_failure) or not lines:
        raise BenchError(
            f"exit code {done.returncode}: {' '.join(words)}\n{done.stdout}{done.stderr}".rstrip()
        )
    result: dict[str, Any] = json.loads(lines[-1])
    result["exit_code"] = done.returncode
    return result
