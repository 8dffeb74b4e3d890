"""Loads and unloads that clients ask for (Triton's model control mode "explicit"), and the index of the repository.

    control = ModelControl(reconciler, Repositories((Path("models"),)), explicit=True)
    await control.load("digits")      # ready now; or NotFound, InvalidArgument, Unavailable
    await control.unload("digits")

A load reads the model's folder again and makes the reconciler want what is there: a version whose configuration or files
have changed is loaded beside the old one and takes its place when it is ready and warm; one that has not changed is left
alone. Where anything fails, what served goes on serving. Operations on one model run one after the other, in the order in
which they came; those on different models run at the same time. Whoever waits for one may go away: it goes on.

Runs on the event loop's thread; folders are read on other threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fastserve.errors import FastserveError, Internal, InvalidArgument, NotFound, Unavailable
from fastserve.lifecycle.model_folder import FoundModel
from fastserve.lifecycle.reconciler import ModelState, Reconciler
from fastserve.lifecycle.repository import Repositories

logger = logging.getLogger("fastserve.lifecycle")

MAX_OPERATIONS = 256  # loads and unloads that run or wait, of all clients together

_NOT_ALLOWED = (
    "explicit model load / unload is not allowed if polling is enabled or models are loaded at start only: "
    "start the server with --model-control-mode explicit"
)


@dataclass
class _Turn:
    """The operations on one model."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # first come, first served
    users: int = 0


class ModelControl:
    def __init__(
        self,
        reconciler: Reconciler,
        repositories: Repositories,
        *,
        explicit: bool,
        max_operations: int = MAX_OPERATIONS,
    ) -> None:
        self._reconciler = reconciler
        self._repositories = repositories
        self._explicit = explicit
        self._max_operations = max_operations
        self._turns: dict[str, _Turn] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unloaded: dict[str, set[int]] = {}  # by the last operation on the model
        self._closed = False
        self.refused = 0  # operations beyond max_operations

    async def load(self, model: str) -> None:
        """Returns when every version that is wanted serves. NotFound: no repository has the model. InvalidArgument: it
        could not be loaded; the text has the reason of each version. Unavailable: not in this mode, or not now."""
        await self._in_turn(model, self._load)

    async def unload(self, model: str) -> None:
        """Returns when its requests are answered and it is gone, also when it was not there."""
        await self._in_turn(model, self._unload)

    async def states(self) -> list[ModelState]:
        """What the reconciler knows, what was unloaded (UNLOADED) and what lies in the repositories and was never loaded
        (state ""); by model, then version."""
        states = {(s.model, s.version): s for s in self._reconciler.model_states()}
        for model, versions in self._unloaded.items():
            for version in versions:
                states.setdefault((model, version), ModelState(model, version, "UNLOADED", "unloaded"))
        known = {model for model, _ in states}
        for model in await self._names():
            if model not in known:
                states[model, None] = ModelState(model, None, "")
        return [states[key] for key in sorted(states, key=lambda k: (k[0], k[1] or 0))]

    async def close(self) -> None:
        """Starts nothing more; what is under way ends with the reconciler, which has to be closed beside this."""
        self._closed = True
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- one after the other

    async def _in_turn(self, model: str, operation: Callable[[str], Awaitable[None]]) -> None:
        if not self._explicit:
            raise Unavailable(_NOT_ALLOWED)
        if self._closed:
            raise Unavailable("the server is shutting down")
        if len(self._tasks) >= self._max_operations:
            self.refused += 1
            raise Unavailable(
                f"{len(self._tasks)} loads and unloads run or wait, want fewer than {self._max_operations}"
            )
        task = asyncio.create_task(self._turn(model, operation))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.shield(task)

    async def _turn(self, model: str, operation: Callable[[str], Awaitable[None]]) -> None:
        turn = self._turns.setdefault(model, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                if self._closed:
                    raise Unavailable("the server is shutting down")
                await operation(model)
        finally:
            turn.users -= 1
            if turn.users == 0:
                del self._turns[model]

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()  # looked at: its client may be gone
        if error is not None and not isinstance(error, FastserveError):
            logger.error("a load or unload by request broke", exc_info=error)

    # --- the operations

    async def _load(self, model: str) -> None:
        found = await self._found(model)
        reasons = _reasons(found)
        before = self._serving(model)
        self._want(found, reasons, before)
        await self._reconciler.settle_model(model)
        self._unloaded[model] = before - self._serving(model)
        if self._reconciler.closed:
            raise Unavailable("the server is shutting down")
        failed: dict[int | None, str] = {**reasons, **dict(self._reconciler.failed(model).items())}
        for version in self._serving(model):
            if why := reasons.get(version) or reasons.get(None):
                self._reconciler.keep_serving(model, version, why)
        if failed:
            raise InvalidArgument(f"load failed for model '{model}': {_joined(failed)}")

    def _want(self, found: FoundModel, reasons: Mapping[int | None, str], serving: set[int]) -> None:
        """Has the reconciler want what was found; what is broken now and serves is kept as it is."""
        wanted = self._reconciler.wanted(found.name)
        kept = {v: spec for v, spec in wanted.items() if v in reasons or not found.versions}
        failures = [
            ModelState(found.name, version, "FAILED", text)
            for version, text in reasons.items()
            if version not in serving and not (version is None and serving)
        ]
        self._reconciler.set_model(found.name, {**kept, **found.versions}, failures)

    async def _unload(self, model: str) -> None:
        before = self._serving(model)
        self._reconciler.set_model(model, {})
        await self._reconciler.settle_model(model)
        left = self._serving(model)
        self._unloaded[model] = before - left
        if left:
            numbers = ",".join(map(str, sorted(left)))
            raise Internal(f"failed to unload '{model}', versions that are still available: {numbers}")

    def _serving(self, model: str) -> set[int]:
        states = (s for s in self._reconciler.model_states() if s.model == model)
        return {s.version for s in states if s.version is not None and s.state in {"READY", "DRAINING"}}

    async def _found(self, model: str) -> FoundModel:
        try:
            scan = await asyncio.to_thread(self._repositories.scan, {model})
        except FastserveError as error:  # a repository itself: not the client's fault
            logger.error("%s: %s", model, error, extra={"model": model})
            raise Unavailable(f"failed to load '{model}', the model repository cannot be read") from None
        if not scan.models:
            raise NotFound(f"failed to load '{model}', failed to poll from model repository")
        return scan.models[0]

    async def _names(self) -> list[str]:
        try:
            return await asyncio.to_thread(self._repositories.names)
        except FastserveError as error:
            logger.error("%s", error)
            return []


def _reasons(found: FoundModel) -> dict[int | None, str]:
    """Why versions (None: the whole model) cannot even be tried."""
    reasons: dict[int | None, str] = {}
    for problem in found.problems:
        said = reasons.get(problem.version)
        reasons[problem.version] = f"{said}; {problem}" if said else str(problem)
    return reasons


def _joined(reasons: Mapping[int | None, str]) -> str:
    return " ".join(
        f"{text};" if version is None else f"version {version} is at UNAVAILABLE state: {text};"
        for version, text in sorted(reasons.items(), key=lambda item: item[0] or 0)
    )
