"""The worker processes of a run, seen from the command. One thread."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fastserve
from fastserve.bench import messages
from fastserve.bench.plan import Step, Tally, Target
from fastserve.errors import Internal, Unavailable

Watch = Callable[[float, int, int], None]  # seconds since the start (below 0 before it), answered, errors
_LEAD_NS = 100_000_000  # from telling the workers to the start
_WATCH_S = 0.1


class Fleet:
    """A context manager: the processes end with it."""

    def __init__(self, target: Target, processes: int) -> None:
        self._where = str(target.address)
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(processes):
                self._processes.append(_start())
            for process in self._processes:
                _send(process, target)
        except BaseException:
            self._end(at_once=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(at_once=exc_type is not None)

    def _end(self, *, at_once: bool) -> None:
        """A worker that we cannot wait for ends by itself when its pipes are gone: at its next report at the latest."""
        for process in self._processes:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        for process in self._processes:
            try:
                process.wait(0.0 if at_once else 1.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __len__(self) -> int:
        return len(self._processes)

    def run(self, step: Step, watch: Watch, at: dict[int, Callable[[], None]] | None = None) -> Tally:
        """Runs the step, divided among the processes. `at`: ns after the start -> what to call then.

        Raises Unavailable when the server cannot be reached.
        """
        shares = self._divided(step)
        for process, share in zip(self._processes, shares, strict=True):
            _send(process, (share.connections, None))
        for process in self._processes:
            _, problem = _receive(process)
            if problem:
                raise Unavailable(f"{self._where}: {problem}")
        start_ns = time.monotonic_ns() + _LEAD_NS
        for process, share in zip(self._processes, shares, strict=True):
            _send(process, (0, replace(share, start_ns=start_ns)))
        return self._collect(start_ns, watch, dict(at or {}))

    def _divided(self, step: Step) -> list[Step]:
        count = len(self._processes)
        made = []
        for share in range(count):
            level = step.level
            if step.mode == "closed":
                level = _part(int(step.level), share, count)
            made.append(
                replace(
                    step,
                    level=level,
                    connections=max(1, _part(step.connections, share, count)),
                    max_requests=_part(step.max_requests, share, count),
                    share=share,
                    shares=count,
                )
            )
        return made

    def _collect(self, start_ns: int, watch: Watch, at: dict[int, Callable[[], None]]) -> Tally:
        total = Tally()
        counts = {process.pid: (0, 0) for process in self._processes}
        left = len(self._processes)
        with selectors.DefaultSelector() as selector:
            for process in self._processes:
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, process)
            while left:
                elapsed_ns = time.monotonic_ns() - start_ns
                for when in [when for when in at if when <= elapsed_ns]:
                    at.pop(when)()
                for key, _ in selector.select(_wait_s(at, elapsed_ns)):
                    kind, *rest = _receive(key.data)
                    if kind == "progress":
                        counts[key.data.pid] = (rest[0], rest[1])
                    else:
                        total.merge(rest[0])
                        left -= 1
                answered, errors = (sum(column) for column in zip(*counts.values(), strict=True))
                watch(elapsed_ns / 1e9, answered, errors)
        return total


def _wait_s(at: dict[int, Any], elapsed_ns: int) -> float:
    return max(0.0, min([_WATCH_S, *((when - elapsed_ns) / 1e9 for when in at)]))


def _part(whole: int, share: int, shares: int) -> int:
    return whole // shares + (1 if share < whole % shares else 0)


def _start() -> subprocess.Popen[bytes]:
    folders = [str(Path(folder).parent) for folder in fastserve.__path__]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]).rstrip(":"),
    }
    command = [sys.executable, "-P", "-m", "fastserve.bench.worker"]
    # Unbuffered: a buffer of ours would hide messages from the selector.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, bufsize=0)


def _send(process: subprocess.Popen[bytes], message: object) -> None:
    assert process.stdin is not None
    try:
        messages.write(process.stdin, message)
    except BrokenPipeError:
        raise _ended(process) from None


def _receive(process: subprocess.Popen[bytes]) -> Any:
    assert process.stdout is not None
    try:
        return messages.read(process.stdout)
    except EOFError:
        raise _ended(process) from None


def _ended(process: subprocess.Popen[bytes]) -> Exception:
    return Internal(f"a load process ended with exit code {process.wait(10)}; its message is above")
