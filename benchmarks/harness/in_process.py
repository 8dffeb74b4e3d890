"""The engine inside a Python program as a contender: one process that stays, asked block by block."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.bench import ROOT, Bench
from harness.processes import BenchError, stop

PROBE = ROOT / "benchmarks" / "scenarios" / "async_probe.py"


class InProcess:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{PROBE.name} ended with exit code {self._process.wait()}")
        return dict(json.loads(line))

    def load(self, bench: Bench, in_flight: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{in_flight} {bench.seconds} {bench.warmup_s}\n")
        self._process.stdin.flush()
        return self.answer()


@contextlib.contextmanager
def in_process(model: Path, properties: Mapping[str, str]) -> Iterator[InProcess]:
    process = subprocess.Popen(
        [sys.executable, str(PROBE), str(model), json.dumps(properties)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        probe = InProcess(process)
        probe.answer()
        yield probe
    finally:
        stop(process)
