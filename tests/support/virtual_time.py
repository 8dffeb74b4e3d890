"""An event loop whose clock a test moves, and threads whose calls end when the test says so: hours pass in no time, nothing
sleeps, and every order of events can be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def settle(self) -> None:
        """Everything that can run now."""
        while True:
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready and not self._due(self._now):  # type: ignore[attr-defined]
                return

    def advance(self, seconds: float) -> None:
        """Timers fire in their order, each at its time."""
        until = self._now + seconds
        self.settle()
        while (due := self._due(until)) is not None:
            self._now = max(self._now, due)
            self.settle()
        self._now = until

    def call(self, function: Callable[[], Any]) -> Any:
        """`function` as if from a callback of the loop; then everything that follows from it."""

        async def run() -> Any:
            return function()

        result = self.run_until_complete(run())
        self.settle()
        return result

    def end(self) -> None:
        """Whatever still runs is cancelled."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.settle()
        self.close()

    def _due(self, until: float) -> float | None:
        times = [t.when() for t in self._scheduled if not t.cancelled() and t.when() <= until]  # type: ignore[attr-defined]
        return min(times, default=None)


@dataclass
class Call:
    """A blocking call that runs. It does its work at the moment when the test has it end."""

    name: str
    work: Callable[[], None]
    future: asyncio.Future[None]
    given_up: bool = False

    @property
    def kind(self) -> str:
        return self.name.split("-")[0]

    @property
    def key(self) -> tuple[str, int]:
        _, model, version = self.name.split("-")
        return model, int(version)


@dataclass
class FakeThreads:
    """fastserve.lifecycle.loaders.Threads."""

    begins: Callable[[Call], None]
    running: list[Call] = field(default_factory=list)
    current: Call | None = None

    def run(self, name: str, call: Callable[[], None], nice: int = 0) -> asyncio.Future[None]:
        begun = Call(name, call, asyncio.get_running_loop().create_future())
        self.begins(begun)
        self.running.append(begun)
        return begun.future

    def finish(self, call: Call) -> None:
        self.running.remove(call)
        self.current = call
        try:
            call.work()
        except Exception as error:
            call.future.set_exception(error)
        else:
            call.future.set_result(None)
        finally:
            self.current = None
