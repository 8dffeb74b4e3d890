"""SIGHUP: certificates, the repositories and what configures them are read again. Nothing that serves stops for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fastserve.errors import FastserveError
from fastserve.lifecycle import ModelControl
from fastserve.server.systemd import Systemd
from fastserve.server.tls import Certificates

log = logging.getLogger("fastserve.server")


class Reload:
    """`ask` as often as one likes: while a reload runs, one more is remembered."""

    def __init__(
        self, control: ModelControl, tls: Certificates | None, systemd: Systemd, status: Callable[[], str]
    ) -> None:
        """`status`: for systemd, once it is done."""
        self._control = control
        self._tls = tls
        self._systemd = systemd
        self._status = status
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._closed = False

    def ask(self) -> None:
        if self._closed:
            return
        if self._task is not None:
            self._again = True
        else:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                self._again = False
                await self._once()
                if not self._again or self._closed:
                    return
        finally:
            self._task = None

    async def _once(self) -> None:
        log.info("SIGHUP: reading certificates and repositories again")
        self._systemd.reloading()
        if self._tls is not None:
            self._tls.reload()
        try:
            changed = await self._control.reload()
        except FastserveError as error:
            log.error("nothing was reloaded: %s", error)
        except Exception:
            log.exception("the reload broke: everything is as it was")
        else:
            log.info("reloaded: %s", "models have changed" if changed else "nothing has changed")
        self._systemd.reloaded(self._status())
