"""Engines with small models, and programs of their own for what a process can only do once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastserve import Engine, Tensor

# What every program begins with: `engine`, with "echo" (y = x, up to 8 rows of 4) and `slow(us)`, the same with a delay.
PROGRAM = """
import gc, os, signal, sys, threading, time
import numpy as np
import fastserve
from fastserve import Engine, Tensor

def load_echo(engine, name="echo", us=0, **settings):
    engine.load(name, backend="identity", max_batch_rows=8, inputs=[Tensor("x", "FP32", (-1, 4))],
                outputs=[Tensor("y", "FP32", (-1, 4))], parameters={"execute_delay_us": str(us)}, **settings)

x = {"x": np.ones((1, 4), np.float32)}
engine = Engine()
load_echo(engine)
"""

Load = Callable[..., None]


def echo(engine: Engine, name: str = "echo", us: int = 0, **settings: object) -> None:
    engine.load(
        name,
        backend="identity",
        max_batch_rows=settings.pop("max_batch_rows", 8),  # type: ignore[arg-type]
        inputs=[Tensor("x", "FP32", (-1, 4))],
        outputs=[Tensor("y", "FP32", (-1, 4))],
        parameters={"execute_delay_us": str(us)},
        **settings,  # type: ignore[arg-type]
    )


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as engine:
        echo(engine)
        yield engine


@pytest.fixture
def load_echo() -> Load:
    return echo


class Program:
    """A Python program after PROGRAM; `text` is run in a process of its own."""

    def __init__(self, text: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *options, "-c", PROGRAM + textwrap.dedent(text)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def line(self) -> str:
        """The next line, and not a byte more: what a reader's buffer held would be lost to `end`, which reads the pipe itself."""
        assert self.process.stdout is not None
        found = b""
        while not found.endswith(b"\n") and (byte := os.read(self.process.stdout.fileno(), 1)):
            found += byte
        return found.decode().strip()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self, timeout: float = 30.0) -> tuple[int, str, str]:
        """Exit code, the rest of stdout, stderr."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            pytest.fail(f"the program hung; stdout: {out}\nstderr: {err}")
        return self.process.returncode, out.strip(), err


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(text: str, *options: str) -> Program:
        started.append(Program(text, *options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def eventually() -> Callable[..., None]:
    return until


ROOT = Path(__file__).resolve().parents[3]
