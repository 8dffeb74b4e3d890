"""Unix-socket listeners: opened, replaced when left behind, refused when in use, removed at exit."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from fastserve.server.listeners import StartError, address_text, listen_all, listen_unix, unlink_unix

HERE = ("127.0.0.1", 0)


def test_a_socket_for_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "fs.sock"
    with listen_unix(str(path), "--grpc-unix-socket") as sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert address_text(sock) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_file_left_behind_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "fs.sock")
    listen_unix(path, "").close()  # the file stays
    listen_unix(path, "").close()


def test_a_socket_in_use_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "fs.sock")
    with (
        listen_unix(path, ""),
        pytest.raises(StartError, match="in use: choose another with --grpc-unix-socket"),
    ):
        listen_unix(path, "--grpc-unix-socket")


def test_a_file_that_is_no_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(StartError, match="in use"):
        listen_unix(str(path), "--grpc-unix-socket")
    assert path.read_text() == "data"


@pytest.mark.parametrize("path", ["/nowhere/at/all.sock", "/" + "long" * 40])
def test_a_path_that_cannot_be(path: str) -> None:
    with pytest.raises(StartError, match="--http-unix-socket"):
        listen_unix(path, "--http-unix-socket")


def test_unix_comes_beside_tcp_and_is_unlinked(tmp_path: Path) -> None:
    path = tmp_path / "fs.sock"
    opened = listen_all({"grpc": HERE, "http": HERE}, {"grpc": f"unix:{path}", "http": None})
    assert [s.family for s in opened["grpc"]] == [socket.AF_INET, socket.AF_UNIX]
    unlink_unix(opened)
    assert not path.exists()
    for sock in (s for group in opened.values() for s in group):
        sock.close()
