"""The models of an embedded engine as the front ends see them: what the program loaded, and nothing that clients may change."""

from __future__ import annotations

from fastserve import _core
from fastserve.errors import Unavailable
from fastserve.lifecycle import ModelState, VersionSpec
from fastserve.lifecycle.load_override import Override
from fastserve.lifecycle.version_spec import TensorShape

_NOT_ALLOWED = (
    "explicit model load / unload is not allowed: the models belong to the program that embeds this server"
)


class EngineModels:
    """Both halves of what a repository is to a server (lifecycle.Reconciler, lifecycle.ModelControl)."""

    def __init__(self, core: _core.Engine) -> None:
        self._core = core

    def spec(self, model: str, version: int) -> VersionSpec | None:
        """As far as the engine tells."""
        for status in self._core.status():
            if (status.model, status.version) == (model, version):
                return VersionSpec(
                    model,
                    version,
                    status.backend,
                    max_batch_rows=status.max_batch_rows,
                    inputs=_shapes(status.inputs),
                    outputs=_shapes(status.outputs),
                )
        return None

    def model_states(self) -> list[ModelState]:
        states = [ModelState(s.model, s.version, s.state, s.reason, s.progress) for s in self._core.status()]
        return sorted(states, key=lambda state: (state.model, state.version or 0))

    async def states(self) -> list[ModelState]:
        return self.model_states()

    async def load(self, model: str, override: Override | None = None) -> None:
        raise Unavailable(_NOT_ALLOWED)

    async def unload(self, model: str) -> None:
        raise Unavailable(_NOT_ALLOWED)

    async def reload(self) -> bool:
        raise Unavailable(_NOT_ALLOWED)

    async def close(self) -> None:
        pass


def _shapes(specs: list[_core.TensorSpec]) -> tuple[TensorShape, ...]:
    return tuple(TensorShape(s.name, s.datatype, tuple(s.shape), s.optional) for s in specs)
