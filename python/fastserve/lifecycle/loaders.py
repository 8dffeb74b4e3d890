"""Threads for the engine's blocking calls: one a call, so that none is left over and one that hangs takes nobody's place.

How many there are at a time is the policy's business (policy.Room). They are daemons: a load that never ends does not keep the
process from ending. The engine lowers the priority of a thread while it loads (csrc/engine/loader_priority.h); on a machine
that is never idle, those that have not ended after PATIENCE_S are told to hurry.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from typing import Protocol

from fastserve import _core

PATIENCE_S = 5.0


class Threads(Protocol):
    """Where blocking calls run."""

    def run(self, name: str, call: Callable[[], None], nice: int = 0) -> asyncio.Future[None]: ...


class LoaderThreads:
    def run(self, name: str, call: Callable[[], None], nice: int = 0) -> asyncio.Future[None]:
        """Starts at once; the future ends on the running loop's thread, as the call does. `nice`: of the thread, beyond the
        process's own."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            error: BaseException | None = None
            try:
                if nice:
                    os.setpriority(
                        os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + nice
                    )
                call()
            except BaseException as raised:  # whatever a backend throws belongs to whoever waits
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_end, future, error)

        threading.Thread(target=work, name=f"fastserve-{name}", daemon=True).start()
        _hurry_until_done(loop, future)
        return future


def _hurry_until_done(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """More than once, because a call may begin to load only after a while."""

    def look() -> None:
        if not future.done():
            _core.Engine.hurry_loads(PATIENCE_S)
            loop.call_later(PATIENCE_S, look)

    loop.call_later(PATIENCE_S, look)


def _end(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    elif isinstance(error, Exception):
        future.set_exception(error)
    else:  # SystemExit of a model's code, for example, which must not end the loop
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
