"""The part of _core.Engine that the reconciler uses, for VirtualLoop and FakeThreads: every call does what the test says it does,
and the core complains about calls that the real engine would refuse."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tests.support.virtual_time import Call, FakeThreads

from fastserve import errors

Key = tuple[str, int]


class FakeCore:
    def __init__(
        self,
        begins: Callable[[Call], None] = lambda call: None,
        gives_up: Callable[[Call], None] = lambda call: None,
    ) -> None:
        """`begins`, `gives_up`: called when a call begins, when a load is given up."""
        self._gives_up = gives_up
        self.threads = FakeThreads(begins)
        self.published: dict[Key, str] = {}  # what serves -> the variant that it was loaded from
        self.failed: dict[Key, str] = {}
        self.outcome: Exception | None = None  # of the call that ends next

    # --- as the engine has them

    def load(self, spec: Any, progress: Callable[[float, str], None] | None = None) -> None:
        key = (spec.model, spec.version)
        if progress is not None:
            progress(0.5, "compiling")
        assert self.threads.current is not None
        if self.threads.current.given_up:
            raise errors.DeadlineExceeded("the load was given up")
        self.failed.pop(key, None)
        if self.outcome is not None:
            if key not in self.published:
                self.failed[key] = str(self.outcome)
            raise self.outcome
        self.published[key] = spec.parameters["variant"]

    def give_up_load(self, model: str, version: int) -> bool:
        loads = self.loads((model, version))
        for call in loads:
            call.given_up = True
            self._gives_up(call)
        return bool(loads)

    def unload(self, model: str, version: int, drain_seconds: float | None = None) -> None:
        if self.outcome is not None:
            raise self.outcome
        if (
            self.published.pop((model, version), None) is None
            and self.failed.pop((model, version), None) is None
        ):
            raise errors.NotFound("is not found")

    def status(self) -> list[Any]:
        def entry(key: Key, state: str, reason: str) -> Any:
            return SimpleNamespace(model=key[0], version=key[1], state=state, reason=reason, progress=1.0)

        ready = [entry(key, "READY", "") for key in self.published]
        return ready + [
            entry(key, "FAILED", why) for key, why in self.failed.items() if key not in self.published
        ]

    # --- for tests

    def loads(self, key: Key | None = None) -> list[Call]:
        """That run and were not given up."""
        calls = [c for c in self.threads.running if c.kind == "load" and not c.given_up]
        return [call for call in calls if key in (None, call.key)]

    def late(self) -> list[Call]:
        return [call for call in self.threads.running if call.given_up]

    def unloads(self, key: Key | None = None) -> list[Call]:
        return [c for c in self.threads.running if c.kind == "unload" and key in (None, c.key)]

    def serving(self, model: str) -> set[int]:
        """Takes requests: an unload refuses them from its beginning on."""
        leaving = {call.key for call in self.unloads()}
        return {
            version for name, version in self.published if name == model and (name, version) not in leaving
        }

    def finish(self, call: Call, outcome: Exception | None = None) -> None:
        self.outcome = outcome
        self.threads.finish(call)
        self.outcome = None
