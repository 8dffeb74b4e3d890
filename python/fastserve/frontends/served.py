"""What front ends see of the server: the engine, the reconciler, what clients may change, and whether the server is ready.

Runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import InitVar, dataclass, field
from typing import Protocol

from fastserve import _core
from fastserve.frontends.tracing import Tracing
from fastserve.lifecycle import ModelState, VersionSpec
from fastserve.lifecycle.load_override import Override
from fastserve.lifecycle.version_labels import VersionLabels


class Models(Protocol):
    """What is known of versions beyond what the engine knows (lifecycle.Reconciler)."""

    def spec(self, model: str, version: int) -> VersionSpec | None: ...
    def model_states(self) -> list[ModelState]: ...


class Control(Protocol):
    """What clients may ask for, and the index (lifecycle.ModelControl)."""

    async def load(self, model: str, override: Override | None = None) -> None: ...
    async def unload(self, model: str) -> None: ...
    async def reload(self) -> bool: ...
    async def states(self) -> list[ModelState]: ...
    async def close(self) -> None: ...


class Readiness:
    """Whether the server is ready, and a way to wait for a change of it. False until the initial load is
    finished."""

    def __init__(self) -> None:
        self._ready = False
        self._changed = asyncio.Event()

    def __bool__(self) -> bool:
        return self._ready

    def set(self, ready: bool) -> None:
        if ready == self._ready:
            return
        self._ready = ready
        self._changed.set()  # wakes everybody who waits now
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Returns when the value was set to another one after this call."""
        await self._changed.wait()


@dataclass
class Served:
    """One server as its front ends see it."""

    core: _core.Engine
    reconciler: Models
    control: Control
    tracing: Tracing
    version: str  # of fastserve
    ready: Readiness = field(default_factory=Readiness)
    reflection: bool = False  # gRPC server reflection is answered
    version_labels: InitVar[VersionLabels | None] = None  # None: those that the engine has, whoever set them
    labels: VersionLabels = field(init=False)

    def __post_init__(self, version_labels: VersionLabels | None) -> None:
        self.labels = version_labels or VersionLabels(self.core, shared=True)
