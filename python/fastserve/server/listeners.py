"""Listening sockets, and the one line that a user gets when one cannot be opened."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastserve.errors import FailedPrecondition

BACKLOG = 1024


class StartError(FailedPrecondition):
    """The server cannot start, through no fault of its own. The text is one line that says what to do."""


def listen_all(
    wanted: Mapping[str, tuple[str, int]], unix: Mapping[str, str | None] | None = None
) -> dict[str, list[socket.socket]]:
    """`wanted`: name -> host and port, the name being that of the flag: "http" for --http-port. `unix`: name -> path of
    a Unix socket beside them, `/path` or `unix:/path`. All of them or none."""
    opened: dict[str, list[socket.socket]] = {}
    try:
        for name, (host, port) in wanted.items():
            opened[name] = listen(host, port, f"--{name}-port")
        for name, path in (unix or {}).items():
            if path is not None:
                opened.setdefault(name, []).append(
                    listen_unix(path.removeprefix("unix:"), f"--{name}-unix-socket")
                )
    except StartError:
        for sock in (sock for sockets in opened.values() for sock in sockets):
            sock.close()
        unlink_unix(opened)
        raise
    return opened


def unlink_unix(sockets: Mapping[str, list[socket.socket]]) -> None:
    """Removes the files of Unix sockets: nobody may connect any more."""
    for sock in (s for group in sockets.values() for s in group if s.family == socket.AF_UNIX):
        Path(sock.getsockname()).unlink(missing_ok=True)


def listen_unix(
    path: str, flag: str, *, kind: socket.SocketKind = socket.SOCK_STREAM, mode: int = 0o660
) -> socket.socket:
    """A listening Unix socket, by default for its owner and group. A file that a dead process left behind is replaced.
    Raises StartError."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if _is_left_behind(path):
            Path(path).unlink()
        sock.bind(path)
        Path(path).chmod(mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"{path} is in use: choose another with {flag} or stop the process that has it"
            ) from None
        reason = "path too long" if error.errno is None else os.strerror(error.errno)
        raise StartError(f"cannot listen on {path}: {reason} (choose another with {flag})") from None
    return sock


def _is_left_behind(path: str) -> bool:
    """A socket file whose process is gone: nobody accepts."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


def listen(host: str, port: int, flag: str) -> list[socket.socket]:
    """Listening sockets, one for every address of the host (IPv4, IPv6), all on the same port; port 0 picks a
    free one.

    `flag`: how the port is chosen on the command line, for the message. Raises StartError; nothing stays open then.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            sockets.append(_open(family, address, port))
            port = sockets[0].getsockname()[1]
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise StartError(_reason(error, host, port, flag)) from None
    return sockets


def address_text(sock: socket.socket) -> str:
    """`127.0.0.1:8000`, `[::1]:8000`, `unix:/run/fastserve.sock`."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unique: dict[tuple[socket.AddressFamily, tuple[Any, ...]], None] = {}
    for family, _, _, _, address in found:
        if family == socket.AF_INET6 and not socket.has_dualstack_ipv6():
            continue
        unique[family, address] = None
    if not unique:
        raise OSError(errno.EADDRNOTAVAIL, "no address of a family that this machine has")
    return list(unique)


def _open(family: socket.AddressFamily, address: tuple[Any, ...], port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address[0], port, *address[2:]))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError, host: str, port: int, flag: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} has no address: give an address of this machine with --host"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: choose another with {flag} or stop the process that has it"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: choose another with --host"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} on {host} needs more rights: choose one above 1023 with {flag}"
    reason = os.strerror(error.errno or 0)
    return f"cannot listen on port {port} of {host}: {reason} (choose another with {flag} or --host)"
