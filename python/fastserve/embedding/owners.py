"""Everything of one engine that has requests out, and how all of it ends: by close, by the collector, at exit.

Owners are ended before the models are freed: their answers hold on to the versions that gave them.
"""

from __future__ import annotations

import atexit
import contextlib
import time
import weakref
from typing import Protocol

from fastserve import _core

# At exit: how long calls of other threads may take to come back from the engine (a load that compiles, a batch that runs).
EXIT_S = 30.0


class Owner(Protocol):
    """A port and what becomes of its answers. `finish` delivers those that are out and closes the port; any thread."""

    def finish(self, *, cancel: bool) -> None: ...


class Owners:
    """Of one engine."""

    def __init__(self, core: _core.Engine) -> None:
        self._core = core
        self._owners: weakref.WeakSet[Owner] = weakref.WeakSet()
        self._kept: set[Owner] = set()
        self._abandoned: list[_core.Port] = []  # nobody wants their answers, which have not come yet
        self.closed = False
        _live.add(self)

    def add(self, owner: Owner) -> None:
        self._owners.add(owner)
        self._reap()

    def keep(self, owner: Owner) -> None:
        """As add, and it lives until let_go: a server that runs, whether or not its program still knows it."""
        self._kept.add(owner)

    def let_go(self, owner: Owner) -> None:
        self._kept.discard(owner)

    def abandon(self, port: _core.Port) -> None:
        """The requests are cancelled; what is running ends when it ends."""
        port.cancel_all()
        self._abandoned.append(port)
        self._reap()

    def close(self) -> None:
        """Answers what was admitted, gives every answer to who waits for it, and frees the models."""
        if self._begin_to_close():
            self._core.drain()
            self._finish(cancel=False)
            self._core.close()

    def shut_down(self) -> None:
        """As close, but what still waits in the queue is cancelled."""
        if self._begin_to_close():
            self._finish(cancel=True)
            self._core.shut_down()

    def is_used(self) -> bool:
        return self._core.is_used and not self._core.is_forked

    def _begin_to_close(self) -> bool:
        if self.closed:
            return False
        self.closed = True
        if self._core.is_forked:  # nothing here answers any more
            self._core.close()
            return False
        return True

    def _finish(self, *, cancel: bool) -> None:
        for owner in (*self._kept, *self._owners):
            owner.finish(cancel=cancel)
        for port in self._abandoned:
            port.close()
        self._abandoned.clear()

    def _reap(self) -> None:
        for port in list(self._abandoned):
            port.take()
            if port.in_flight == 0:
                port.close()
                with contextlib.suppress(ValueError):  # another thread was faster
                    self._abandoned.remove(port)


_live: weakref.WeakSet[Owners] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    """No thread may be inside the engine, or come back from it, while the interpreter goes away."""
    owners = list(_live)
    for each in owners:
        each.shut_down()
    until = time.monotonic() + EXIT_S
    while any(each.is_used() for each in owners) and time.monotonic() < until:
        time.sleep(0.001)
    _core.end_of_interpreter()
