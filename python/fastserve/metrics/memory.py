"""What models have in memory, and requests to models that sleep.

fastserve_model_memory_bytes{model,version}   what the process grew by when the version was loaded alone; 0: unknown
fastserve_sleeping_models                     wanted, and not loaded until somebody asks
fastserve_model_wakes_total                   loads of a sleeping model because somebody asked
fastserve_held_requests                       that wait now until their model is loaded
fastserve_held_request_bytes                  theirs
fastserve_held_requests_total                 requests that were held, since the start
fastserve_asleep_requests_refused_total       to a sleeping model: by --on-asleep refuse, beyond a limit, or opened locally
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import model_labels, single

LOADED = ("READY", "DRAINING")


class Core(Protocol):
    """The part of _core.Engine that is read here."""

    def status(self) -> list[_core.VersionStatus]: ...
    def parking(self) -> _core.ParkingTotals: ...


class Sleep(Protocol):
    """The part of lifecycle.Residency that is read here."""

    @property
    def asleep(self) -> frozenset[str]: ...
    @property
    def wakes(self) -> int: ...


class MemoryCollector:
    """A prometheus_client collector."""

    def __init__(self, core: Core, sleep: Sleep) -> None:
        self._core = core
        self._sleep = sleep

    def collect(self) -> Iterator[Metric]:
        name = "fastserve_model_memory_bytes"
        memory = Metric(name, "What the process grew by when the version was loaded; 0: unknown", "gauge")
        for status in self._core.status():
            if status.state in LOADED:
                memory.add_sample(name, model_labels(status), status.memory_bytes)
        yield memory
        totals = self._core.parking()
        for kind, what, text, value in (
            ("gauge", "sleeping_models", "Not loaded until somebody asks", len(self._sleep.asleep)),
            ("counter", "model_wakes_total", "Loads because somebody asked", self._sleep.wakes),
            ("gauge", "held_requests", "Waiting until their model is loaded", totals.requests),
            ("gauge", "held_request_bytes", "Bytes of requests that are held", totals.bytes),
            ("counter", "held_requests_total", "Requests that were held", totals.parked),
            ("counter", "asleep_requests_refused_total", "Refused, model asleep", totals.refused),
        ):
            yield single(kind, f"fastserve_{what}", text, value)
