"""Engine.infer_async: the submissions of one asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import Any

from fastserve import _core
from fastserve.embedding.types import Outputs

SHARED_MS = 10  # the loop's thread may take meanwhile what is waited for
Answers = list[tuple[object, Outputs | None, Exception | None]]


class LoopPort:
    """Requests that are submitted in one pass of the loop wake the engine once; answers that are ready together wake the loop
    once and are given to their futures in C++. Everything but finish runs on the loop's thread."""

    def __init__(self, core: _core.Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._port = _core.Port(core)
        self.loop = weakref.ref(loop)
        self._submit = self._port.submit
        self._flush_scheduled = False
        loop.add_reader(self._port.fd, self._port.resolve)

    def submit(self, loop: asyncio.AbstractEventLoop, *request: Any) -> tuple[asyncio.Future[Outputs], int]:
        """The future, and the number that `cancel` wants."""
        future: asyncio.Future[Outputs] = loop.create_future()
        number = self._submit(future, *request)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            loop.call_soon(self._flush)
        return future, number

    def cancel(self, number: int, future: asyncio.Future[Outputs]) -> None:
        """What waits in the queue leaves it."""
        self._port.cancel(number, future)

    def finish(self, *, cancel: bool) -> None:
        """Any thread. Takes the answers here, and gives them to their futures on the loop's thread."""
        if cancel:
            self._port.cancel_all()
        answers: Answers = self._port.take()
        while self._port.in_flight:
            self._port.flush()
            self._port.wait(SHARED_MS)
            answers += self._port.take()
        loop = self.loop()
        if loop is None or loop.is_closed():
            self._port.close()
        elif not loop.is_running() or _runs_here(loop):
            self._deliver(loop, answers)
        else:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(self._deliver, loop, answers)

    def _flush(self) -> None:
        self._flush_scheduled = False
        self._port.flush()

    def _deliver(self, loop: asyncio.AbstractEventLoop, answers: Answers) -> None:
        if self._port.fd >= 0:
            loop.remove_reader(self._port.fd)
        for tag, outputs, error in answers:
            assert isinstance(tag, asyncio.Future)
            if tag.done():  # its caller gave up
                continue
            if error is not None:
                tag.set_exception(error)
            else:
                tag.set_result(outputs)
        self._port.close()


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
