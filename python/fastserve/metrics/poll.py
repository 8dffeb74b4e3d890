"""How the look-out for changed models fares.

fastserve_repository_polls_total            looks since the start
fastserve_repository_changes_total          models that a look found changed or gone
fastserve_repository_poll_seconds           what the last look took
fastserve_repository_changing               versions and configurations that are being written, or changed just now
fastserve_repository_lost{repository}       1: it cannot be read, and its models serve on as they are
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric

from fastserve.metrics.families import single


class Figures(Protocol):
    @property
    def polls(self) -> int: ...
    @property
    def changes(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def changing(self) -> int: ...
    @property
    def lost(self) -> tuple[tuple[str, bool], ...]: ...


class PollCollector:
    """A prometheus_client collector."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        f = self._figures
        polls = "Looks at the model repositories"
        yield single("counter", "fastserve_repository_polls_total", polls, f.polls)
        changed = "Models that a look found changed or gone"
        yield single("counter", "fastserve_repository_changes_total", changed, f.changes)
        took = "What the last look at the repositories took"
        yield single("gauge", "fastserve_repository_poll_seconds", took, f.seconds)
        waiting = "Versions and configurations that are being written or changed just now"
        yield single("gauge", "fastserve_repository_changing", waiting, f.changing)
        lost = Metric(
            "fastserve_repository_lost", "1: cannot be read, its models serve on as they are", "gauge"
        )
        for repository, is_lost in f.lost:
            lost.add_sample("fastserve_repository_lost", {"repository": repository}, float(is_lost))
        yield lost
