"""Operations on models: those on one model one after the other, those on different models at the same time.

While an operation runs, one more may wait. A newer one takes the place of one that waits (which ends with ABORTED), unless both
are the same: then whoever asked for either gets the outcome of the one. Who asked may go away; an operation goes on.

Runs on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastserve.errors import Aborted, FastserveError, Unavailable

logger = logging.getLogger("fastserve.lifecycle")

CLOSED = "the server is shutting down"


@dataclass
class _Operation:
    what: str  # "load", "unload"
    shared: bool  # another one of the same `what` is the same
    work: Callable[[], Awaitable[None]]
    done: asyncio.Future[None]


@dataclass
class _Line:
    waiting: _Operation | None = None


class Turns:
    def __init__(self, max_operations: int) -> None:
        """`max_operations`: that run or wait, of all models together."""
        self._max_operations = max_operations
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._closed = False
        self.refused = 0  # beyond max_operations

    @property
    def idle(self) -> bool:
        return not self._lines

    @property
    def closed(self) -> bool:
        return self._closed

    async def run(self, model: str, what: str, work: Callable[[], Awaitable[None]], *, shared: bool) -> None:
        """Returns, or raises, as `work` does when it is its turn. Aborted: a newer one came before it began. Unavailable: too
        many, or the end of the server."""
        if self._closed:
            raise Unavailable(CLOSED)
        if self._asked >= self._max_operations:
            self.refused += 1
            raise Unavailable(
                f"{self._asked} loads and unloads run or wait, want fewer than {self._max_operations}"
            )
        operation = self._joined(model, what, shared) or self._put(model, what, shared, work)
        self._asked += 1
        operation.done.add_done_callback(self._one_less)
        await asyncio.shield(operation.done)

    def change(self, model: str, work: Callable[[], None]) -> None:
        """`work` now; where an operation runs, after it; not at all where another one waits, which looks for itself."""
        line = self._lines.get(model)
        if self._closed:
            return
        if line is None:
            work()
        elif line.waiting is None:
            self._put(model, "change", False, _later(work))

    async def close(self) -> None:
        """Refuses what waits, and waits for what runs."""
        self._closed = True
        for line in self._lines.values():
            _end(line, Unavailable(CLOSED))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _joined(self, model: str, what: str, shared: bool) -> _Operation | None:
        line = self._lines.get(model)
        waiting = line.waiting if line is not None else None
        return waiting if waiting is not None and shared and waiting.shared and waiting.what == what else None

    def _put(self, model: str, what: str, shared: bool, work: Callable[[], Awaitable[None]]) -> _Operation:
        operation = _Operation(what, shared, work, asyncio.get_running_loop().create_future())
        operation.done.add_done_callback(_looked_at)
        line = self._lines.get(model)
        if line is not None:
            _end(
                line, Aborted(f"a newer {what} of model '{model}' took the place of this one before it began")
            )
            line.waiting = operation
            return operation
        line = self._lines[model] = _Line()
        task = asyncio.create_task(self._work(model, line, operation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    async def _work(self, model: str, line: _Line, operation: _Operation | None) -> None:
        try:
            while operation is not None:
                await _carried_out(operation)
                operation, line.waiting = line.waiting, None
        finally:
            del self._lines[model]

    def _one_less(self, done: asyncio.Future[None]) -> None:
        self._asked -= 1


async def _carried_out(operation: _Operation) -> None:
    try:
        await operation.work()
    except Exception as error:
        operation.done.set_exception(error)
    except BaseException:
        operation.done.cancel()
        raise
    else:
        operation.done.set_result(None)


def _end(line: _Line, error: FastserveError) -> None:
    operation, line.waiting = line.waiting, None
    if operation is not None:
        operation.done.set_exception(error)


def _looked_at(done: asyncio.Future[None]) -> None:
    """Who asked may be gone."""
    error = None if done.cancelled() else done.exception()
    if error is not None and not isinstance(error, FastserveError):
        logger.error("a load or unload by request broke", exc_info=error)


def _later(work: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def change() -> None:
        work()

    return change
