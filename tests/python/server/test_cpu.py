"""--cpu-threads, --tune and --tune-cache: what they set for the process."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastserve import _core, config
from fastserve.server import cpu


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What was handed to the engine's process-wide settings."""
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(_core, "set_tuning", lambda **settings: seen.append(settings))
    yield seen
    _core.limit_cpu_threads(0)


def test_threads_are_limited_and_given_back(tuning: list[dict[str, object]]) -> None:
    everything = _core.cpu_threads()
    cpu.apply(config.Cpu(threads=1))
    assert _core.cpu_threads() == 1
    cpu.apply(config.Cpu())
    assert _core.cpu_threads() == everything


def test_more_threads_than_cpus_is_said(
    tuning: list[dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        cpu.apply(config.Cpu(threads=4096))
    assert "--cpu-threads 4096: this process may use" in caplog.text
    assert _core.cpu_threads() < 4096


def test_tune_and_its_folder(tuning: list[dict[str, object]], tmp_path: Path) -> None:
    cpu.apply(config.Cpu(tune="off", tune_cache=str(tmp_path / "a" / "b")))
    cpu.apply(config.Cpu(tune="load", tune_cache="none"))
    assert tuning == [
        {"at_load": False, "cache_directory": str(tmp_path / "a" / "b")},
        {"at_load": True, "cache_directory": ""},
    ]
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(("base", "below"), [("xdg", "xdg/fastserve/tune"), ("", ".cache/fastserve/tune")])
def test_the_default_is_the_users_cache_folder(
    tuning: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    below: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / base) if base else "relative/does/not/count")
    cpu.apply(config.Cpu())
    assert tuning[0]["cache_directory"] == str(tmp_path / below)


@pytest.mark.parametrize(("given", "level"), [("auto", logging.INFO), ("named", logging.WARNING)])
def test_a_folder_that_cannot_be_written_costs_a_log_line(
    tuning: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    given: str,
    level: int,
) -> None:
    (tmp_path / "fastserve").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.INFO):
        cpu.apply(config.Cpu(tune_cache=given if given == "auto" else str(tmp_path / "fastserve" / "x")))
    assert tuning[0]["cache_directory"] == ""
    (record,) = caplog.records
    assert record.levelno == level
    assert "measured shapes are not kept: cannot write to" in record.message


ARENAS_OF_TEN_THREADS = """
import ctypes, tempfile, threading
from fastserve import config
from fastserve.server import cpu

cpu.apply(config.Cpu(threads=2, tune_cache="none"))
together = threading.Barrier(10)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)

def allocate():
    block = libc.malloc(100_000)
    together.wait()
    libc.free(block)

threads = [threading.Thread(target=allocate) for _ in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_char_p)
libc.malloc_info.argtypes, libc.fclose.argtypes = (ctypes.c_int, ctypes.c_void_p), (ctypes.c_void_p,)
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(file.read().decode().count("<heap nr="))
"""


@pytest.mark.parametrize(
    ("environment", "arenas"),
    [
        ({}, 2),
        ({"MALLOC_ARENA_MAX": "5"}, 5),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"}, 4),
    ],
    ids=str,
)
def test_malloc_has_an_arena_for_each_cpu(environment: dict[str, str], arenas: int) -> None:
    """Or as many as whoever started the process wants."""
    others = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")
    }
    done = subprocess.run(
        [sys.executable, "-c", ARENAS_OF_TEN_THREADS],
        env=others | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == arenas
