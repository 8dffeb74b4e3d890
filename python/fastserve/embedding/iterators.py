"""Engine.map and map_async: answers in the order of the inputs, so many requests in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
)
from typing import Any, cast

from fastserve import _core
from fastserve.embedding.owners import Owners
from fastserve.embedding.types import Inputs, Outputs

SHARED_MS = 10  # the thread that iterates may take meanwhile what is waited for


class _Place:
    """One request of a window: its answer, once it is there."""

    __slots__ = ("done", "error", "outputs")

    def __init__(self, error: BaseException | None = None) -> None:
        self.done = error is not None
        self.error = error
        self.outputs: Outputs = {}


class _Window:
    """The requests of one iterator. Used by the thread that iterates; finish by any."""

    def __init__(self, core: _core.Engine) -> None:
        self._port = _core.Port(core)

    def submit(self, *request: Any) -> _Place:
        place = _Place()
        self._port.submit(place, *request)
        return place

    def flush(self) -> None:
        self._port.flush()

    def collect(self) -> None:
        for tag, outputs, error in self._port.take():
            place = cast(_Place, tag)
            place.outputs, place.error, place.done = outputs or {}, error, True

    def wait(self, place: _Place) -> None:
        while not place.done:
            self._port.wait()  # ended by close, after which every place is done
            self.collect()

    def finish(self, *, cancel: bool) -> None:
        if cancel:
            self._port.cancel_all()
        self.collect()
        while self._port.in_flight:
            self._port.wait(SHARED_MS)
            self.collect()
        self._port.close()

    def leave(self, owners: Owners) -> None:
        """Nobody wants what is out."""
        if self._port.in_flight:
            owners.abandon(self._port)
        else:
            self._port.close()


def iterate(
    core: _core.Engine,
    owners: Owners,
    source: Iterable[Inputs],
    in_flight: int,
    request: Callable[[Inputs], tuple[Any, ...]],
) -> Generator[Outputs, None, None]:
    """`request`: the arguments of Port.submit behind the tag."""
    window = _Window(core)
    owners.add(window)
    inputs = iter(source)
    places: deque[_Place] = deque()
    more = True
    try:
        while True:
            while more and len(places) < in_flight:
                try:
                    places.append(window.submit(*request(next(inputs))))
                except StopIteration:
                    more = False
                except Exception as error:  # of the source or of this request: raised at its place, and nothing comes after it
                    places.append(_Place(error))
                    more = False
            if not places:
                return
            window.flush()
            place = places.popleft()
            window.wait(place)
            if place.error is not None:
                raise place.error
            yield place.outputs
    finally:
        window.leave(owners)


async def iterate_async(
    submit: Callable[[Inputs], Coroutine[Any, Any, Outputs]],
    source: Iterable[Inputs] | AsyncIterable[Inputs],
    in_flight: int,
) -> AsyncGenerator[Outputs, None]:
    """While the source is slow, answers that are there are given out. Early end cancels what is out."""
    loop = asyncio.get_running_loop()
    places: deque[asyncio.Future[Outputs]] = deque()
    pull = _Pull(source)
    try:
        while True:
            while pull.more and len(places) < in_flight:
                if places and places[0].done():
                    break
                pulled = pull.next()
                if isinstance(pulled, asyncio.Task):
                    either: list[asyncio.Future[Any]] = [pulled, *list(places)[:1]]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    if not pulled.done():
                        break
                try:
                    places.append(loop.create_task(submit(pull.taken())))
                except (StopIteration, StopAsyncIteration):
                    pull.more = False
                except Exception as error:  # of the source: raised at its place
                    places.append(loop.create_future())
                    places[-1].set_exception(error)
                    pull.more = False
            if not places:
                return
            await asyncio.wait({places[0]})
            yield places.popleft().result()
    finally:
        pull.cancel()
        for place in places:
            place.cancel()
        await asyncio.gather(*places, return_exceptions=True)


class _Pull:
    """The next element of a source of either kind."""

    def __init__(self, source: Iterable[Inputs] | AsyncIterable[Inputs]) -> None:
        self.more = True
        self._task: asyncio.Task[Inputs] | None = None
        self._async: AsyncIterator[Inputs] | None = None
        if isinstance(source, AsyncIterable):
            self._async = aiter(source)
        else:
            self._sync = iter(source)

    def next(self) -> asyncio.Task[Inputs] | None:
        """Begins to pull, where that takes time."""
        if self._async is not None and self._task is None:
            self._task = asyncio.ensure_future(_anext(self._async))
        return self._task

    def taken(self) -> Inputs:
        """What was pulled; raises StopIteration or StopAsyncIteration at the end, and what the source raises."""
        if self._task is None:
            return next(self._sync)
        task, self._task = self._task, None
        element = task.result()
        if element is None:
            raise StopAsyncIteration
        return element

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _anext(source: AsyncIterator[Inputs]) -> Any:
    """None at the end: a task cannot raise StopAsyncIteration's kin through asyncio.wait."""
    return await anext(source, None)
