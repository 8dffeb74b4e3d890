"""Loads that failed (what state a version is in: fastserve_model_state, of the engine's collector).

fastserve_model_load_failures_total{model,version,reason}    loads that failed, and configurations that could not be read
fastserve_model_load_retries_total{model,version}            loads that were tried again by themselves
fastserve_model_load_timeouts_total                          loads that passed their time limit
fastserve_hung_loads                                         of these, how many still run

`reason` is a status code in lower case, or io, out_of_memory, configuration, unknown. `version` is "" where the model as a whole
failed. Series are bounded (lifecycle.load_counts); beyond that, model is "other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import Metric


class Counts(Protocol):
    """lifecycle.load_counts.LoadCounts."""

    @property
    def failures(self) -> Mapping[tuple[str, str, str], int]: ...
    @property
    def retries(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def timeouts(self) -> int: ...


class LifecycleCollector:
    """A prometheus_client collector; collects on the loop's thread."""

    def __init__(self, counts: Counts, hung: Callable[[], int]) -> None:
        self._counts = counts
        self._hung = hung

    def collect(self) -> Iterator[Metric]:
        failures = Metric("fastserve_model_load_failures_total", "Loads that failed, by reason", "counter")
        for (model, version, reason), count in self._counts.failures.items():
            named = {"model": model, "version": version, "reason": reason}
            failures.add_sample(failures.name, named, count)
        yield failures
        retries = Metric("fastserve_model_load_retries_total", "Loads tried again by themselves", "counter")
        for (model, version), count in self._counts.retries.items():
            retries.add_sample(retries.name, {"model": model, "version": version}, count)
        yield retries
        timeouts = Metric(
            "fastserve_model_load_timeouts_total", "Loads that passed their time limit", "counter"
        )
        timeouts.add_sample(timeouts.name, {}, self._counts.timeouts)
        yield timeouts
        hung = Metric("fastserve_hung_loads", "Loads beyond their time limit that still run", "gauge")
        hung.add_sample(hung.name, {}, self._hung())
        yield hung
