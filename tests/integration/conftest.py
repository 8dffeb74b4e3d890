"""Servers that a test starts and stops by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from running_server import RunningServer

Start = Callable[..., RunningServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """start(repository, *arguments) -> RunningServer; ended with the test."""
    servers: list[RunningServer] = []

    def start(repository: Path, *arguments: str) -> RunningServer:
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        servers.append(RunningServer(repository, folder, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
