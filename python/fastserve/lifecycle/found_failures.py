"""What is wrong with models and versions before anybody can try to load them: shown, counted and logged once."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from fastserve.lifecycle.load_counts import LoadCounts
from fastserve.lifecycle.version_record import ModelState

logger = logging.getLogger("fastserve.lifecycle")


class FoundFailures:
    """Thread: the loop's."""

    def __init__(self, counts: LoadCounts) -> None:
        self._counts = counts
        self._failures: dict[str, tuple[ModelState, ...]] = {}  # by model
        self._said: dict[tuple[str, int | None], str] = {}  # what the log has

    def __iter__(self) -> Iterator[ModelState]:
        for failures in self._failures.values():
            yield from failures

    def models(self) -> set[str]:
        return set(self._failures)

    def set(self, model: str, failures: tuple[ModelState, ...]) -> None:
        """Replaces those of a model."""
        before = {failure.version for failure in self._failures.pop(model, ())}
        if failures:
            self._failures[model] = failures
        for failure in failures:
            self.say(failure)
        for version in before - {failure.version for failure in failures}:
            self.forget(model, version)

    def say(self, failure: ModelState) -> None:
        """Once, however often it is found again."""
        key = (failure.model, failure.version)
        if self._said.get(key) == failure.reason:
            return
        self._said[key] = failure.reason
        self._counts.failed(*key, "configuration")
        logger.error("%s", failure.reason, extra={"model": failure.model, "version": failure.version})

    def forget_model(self, model: str) -> None:
        """Somebody asks for it again, and is to find the answer in the log."""
        for version in [version for name, version in self._said if name == model]:
            self.forget(model, version)

    def forget(self, model: str, version: int | None) -> None:
        """It is right again: the next time is another one."""
        self._said.pop((model, version), None)
