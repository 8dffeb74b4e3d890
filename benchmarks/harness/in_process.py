"""A Python program as a contender, such as one with the engine inside: one process that stays, asked block by block."""

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

SCENARIOS = ROOT / "benchmarks" / "scenarios"


class InProcess:
    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self._name = name
        self._process = process
        self.ready: dict[str, Any] = {}  # what it said when it was

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._name} ended with exit code {self._process.wait()}")
        return dict(json.loads(line))

    def ask(self, *words: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def load(self, bench: Bench, in_flight: int) -> dict[str, Any]:
        """A block of async_probe.py."""
        return self.ask(in_flight, bench.seconds, bench.warmup_s)


@contextlib.contextmanager
def in_process(
    model: Path, properties: Mapping[str, str], *arguments: str, probe: str = "async_probe.py"
) -> Iterator[InProcess]:
    """`probe`: a program of scenarios/ that takes the model, its properties and `arguments`."""
    process = subprocess.Popen(
        [sys.executable, str(SCENARIOS / probe), str(model), json.dumps(properties), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        asked = InProcess(probe, process)
        asked.ready = asked.answer()
        yield asked
    finally:
        stop(process)
