"""How far a build has come, for whoever waits for the model: TensorRT counts the steps of phases inside of phases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

Progress = Callable[[float, str], None]


class Phases:
    """The share of the whole: each phase has its part of the step of the one around it. Never goes back."""

    def __init__(self, told: Progress, begin: float, end: float) -> None:
        self._told, self._begin, self._span = told, begin, end - begin
        self._phases: dict[str, list[Any]] = {}  # name -> [name of the one around it, steps, steps done]
        self._best = 0.0

    def started(self, phase: str, parent: str | None, steps: int) -> None:
        self._phases[phase] = [parent, max(steps, 1), 0]
        self._tell(phase)

    def stepped(self, phase: str, step: int) -> None:
        if phase in self._phases:
            self._phases[phase][2] = step + 1
            self._tell(phase)

    def finished(self, phase: str) -> None:
        self._phases.pop(phase, None)

    def _tell(self, phase: str) -> None:
        part = 0.0
        name: str | None = phase
        for _ in range(len(self._phases)):  # a circle would be a mistake of theirs
            if name not in self._phases:
                break
            parent, steps, done = self._phases[name]
            part = min(done + part, steps) / steps
            name = parent
        self._best = max(self._best, part)
        self._told(self._begin + self._span * self._best, f"building: {phase[:80]}")


def monitor(trt: Any, phases: Phases) -> Any:
    """For IBuilderConfig.progress_monitor, which does not keep it alive."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called from C++, on threads of the builder too: nothing may leave it as an exception."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            with suppress(Exception):
                phases.started(phase, parent, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            with suppress(Exception):
                phases.stepped(phase, step)
            return True  # False would end the build

        def phase_finish(self, phase: str) -> None:
            with suppress(Exception):
                phases.finished(phase)

    return Monitor()
