"""A `fastserve serve` process of our own, on free ports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

START_S = 60.0
STOP_S = 30.0


def command(*arguments: str) -> list[str]:
    """`fastserve ...` as a subprocess would call it."""
    return [sys.executable, "-m", "fastserve.cli", *arguments]


def records(log: str) -> list[dict[str, Any]]:
    """The whole JSON lines of a log; what OpenVINO's libraries write to stderr by themselves is left out."""
    return [json.loads(line) for line in log[: log.rfind("\n") + 1].splitlines() if line.startswith("{")]


class RunningServer:
    """Starts on construction and is ready then; a context manager that stops the process whatever happened."""

    def __init__(
        self,
        repository: Path,
        folder: Path,
        *arguments: str,
        program: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder`: for the ready file and the log. `program`: instead of `fastserve serve`."""
        self.log_path = folder / "server.log"
        self.ready_file = folder / "ready.json"
        self._log = self.log_path.open("w")
        started = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(program or command("serve")),
                *("--model-repository", str(repository), "--ready-file", str(self.ready_file)),
                *("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"),
                *arguments,
            ],
            stderr=self._log,
            stdout=self._log,
            env=environment,
            start_new_session=True,
        )
        try:
            self.addresses = self._wait()
        except BaseException:
            self.close()
            raise
        self.start_s = time.monotonic() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def http(self) -> str:
        return self.addresses["http"]

    @property
    def grpc(self) -> str:
        return self.addresses["grpc"]

    @property
    def metrics(self) -> str:
        return self.addresses["metrics"]

    def log(self) -> str:
        return self.log_path.read_text()

    def log_records(self) -> list[dict[str, Any]]:
        return records(self.log())

    def scrape(self) -> dict[str, float]:
        """{'name{labels}': value}"""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=10) as response:
            text = response.read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = STOP_S) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def _wait(self) -> dict[str, str]:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            if self.ready_file.exists():
                addresses: dict[str, str] = json.loads(self.ready_file.read_text())
                return addresses
            time.sleep(0.01)
        raise RuntimeError(f"not ready after {START_S:.0f} s:\n{self.log()}")
