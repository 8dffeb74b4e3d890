"""What systemd is told, and in which order it may hear it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastserve.server.systemd import Systemd


class Listening:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """The first line of each message since."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode().split("\n")[0])
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    made = Listening(tmp_path / "notify")
    yield made
    made.close()


async def test_a_reload_makes_nobody_ready(listening: Listening, tmp_path: Path) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    systemd.loading(lambda: "1 loading")
    systemd.reloading()  # SIGHUP while the first load is under way
    systemd.reloaded("1 loading")
    assert listening.heard() == ["EXTEND_TIMEOUT_USEC=60000000"]
    systemd.ready("1 ready")
    systemd.reloading()
    systemd.reloaded("2 ready")
    assert listening.heard() == ["READY=1", "RELOADING=1", "READY=1"]
    systemd.reloading()
    systemd.stopping("answering what is in flight")
    systemd.reloaded("2 ready")  # it had begun before
    assert listening.heard() == ["RELOADING=1", "STOPPING=1"]
    systemd.close()


async def test_without_systemd_nothing_is_sent() -> None:
    systemd = Systemd({})
    assert not systemd.is_there
    systemd.loading(lambda: "1 loading")
    systemd.ready("1 ready")
    systemd.close()
