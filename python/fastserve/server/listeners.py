"""Listening sockets, and the one line that a user gets when one cannot be opened."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

from fastserve.errors import FailedPrecondition

BACKLOG = 1024


class StartError(FailedPrecondition):
    """The server cannot start, through no fault of its own. The text is one line that says what to do."""


def listen_all(wanted: Mapping[str, tuple[str, int]]) -> dict[str, list[socket.socket]]:
    """`wanted`: name -> host and port, the name being that of the flag: "http" for --http-port. All of them
    or none."""
    opened: dict[str, list[socket.socket]] = {}
    try:
        for name, (host, port) in wanted.items():
            opened[name] = listen(host, port, f"--{name}-port")
    except StartError:
        for sock in (sock for sockets in opened.values() for sock in sockets):
            sock.close()
        raise
    return opened


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
    """`127.0.0.1:8000`, `[::1]:8000`."""
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
