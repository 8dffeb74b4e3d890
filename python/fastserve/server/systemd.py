"""systemd's notification protocol (sd_notify(3)): a service of Type=notify or notify-reload is told how the server is.

Beside the settings (FASTSERVE_*) the only environment that the server reads: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. They
are taken out of it, so that worker processes do not speak for the server.

Runs on the event loop's thread; datagrams are sent without waiting, one that cannot be sent is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping

EXTEND_S = 60  # how much longer the start may take, said every EXTEND_S / 4 while models load


class Systemd:
    """Without NOTIFY_SOCKET it does nothing."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        address = environment.pop("NOTIFY_SOCKET", "")
        watchdog = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        self._address = _address(address)
        self._socket: socket.socket | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_ready = False  # from `ready` to `stopping`
        for_us = not pid or pid == str(os.getpid())
        self._watchdog_s = int(watchdog) / 1e6 if for_us and watchdog.isdigit() else 0.0
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def is_there(self) -> bool:
        return self._socket is not None

    def loading(self, status: Callable[[], str]) -> None:
        """From here to `ready`: the start takes as long as it takes. Starts the watchdog, where one is set up."""
        if not self.is_there:
            return

        def tell() -> None:
            self._send(f"EXTEND_TIMEOUT_USEC={EXTEND_S * 1_000_000}", f"STATUS={_line(status())}")
            self._later("extend", EXTEND_S / 4, tell)

        tell()
        if self._watchdog_s:
            self._beat()

    def ready(self, status: str) -> None:
        self._is_ready = True
        self._end("extend")
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """`reloaded` ends it. Before the server is ready, and once it stops, systemd is told of neither."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        if self._is_ready:
            self._send(
                "RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reading the repositories again"
            )

    def reloaded(self, status: str) -> None:
        if self._is_ready:
            self.ready(status)

    def status(self, text: str) -> None:
        self._send(f"STATUS={_line(text)}")

    def stopping(self, status: str) -> None:
        """The watchdog beats on while the server drains."""
        self._is_ready = False
        self._end("extend")
        self._send("STOPPING=1", f"STATUS={_line(status)}")

    def close(self) -> None:
        for name in list(self._timers):
            self._end(name)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self) -> None:
        self._send("WATCHDOG=1")
        self._later("watchdog", self._watchdog_s / 2, self._beat)

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, call)

    def _end(self, name: str) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(
                OSError
            ):  # nobody listens, or is too slow: systemd's time-outs are its answer
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _address(text: str) -> str | bytes:
    """ "" for none, and for kinds of sockets that are not spoken (vsock:)."""
    if text.startswith("@"):
        return b"\0" + text[1:].encode()  # abstract
    return text if text.startswith("/") else ""


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
