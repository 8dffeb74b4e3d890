"""The local transport (--local): who is connected, what memory they registered, how often somebody had to be woken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import single

_FAMILIES = (
    ("gauge", "fastserve_local_connections", "Open connections", "connections"),
    ("counter", "fastserve_local_connections_accepted_total", "Connections accepted", "accepted"),
    (
        "counter",
        "fastserve_local_connections_refused_total",
        "Connections of users that may not connect, or beyond the limit",
        "connections_refused",
    ),
    (
        "counter",
        "fastserve_local_connections_broken_total",
        "Connections ended because what the client sent could not be read",
        "connections_broken",
    ),
    ("gauge", "fastserve_local_regions", "Regions of clients' memory that are mapped", "regions"),
    ("gauge", "fastserve_local_region_bytes", "Bytes of these regions", "region_bytes"),
    ("gauge", "fastserve_local_requests_in_flight", "Requests that have no answer yet", "open_calls"),
    ("counter", "fastserve_local_requests_total", "Requests taken out of clients' rings", "requests"),
    ("counter", "fastserve_local_doorbells_total", "Times that a client woke the server", "doorbells"),
    ("counter", "fastserve_local_wakes_total", "Times that the server woke a client", "wakes"),
)

_REFUSALS = (
    (
        "fastserve_local_requests_refused_total",
        "requests answered without having reached a model's queue",
        "requests_refused",
    ),
    (
        "fastserve_local_control_refused_total",
        "handshakes, registrations of memory and openings of models that were refused",
        "control_refused",
    ),
)


class LocalCollector:
    """A prometheus_client collector, registered only where the transport is on."""

    def __init__(self, statistics: Callable[[], _core.LocalStatistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        now: Mapping[str, Any] = self._statistics()
        for kind, name, text, field in _FAMILIES:
            yield single(kind, name, f"Local transport: {text[0].lower()}{text[1:]}", now[field])
        for name, text, field in _REFUSALS:
            refused = Metric(name, f"Local transport: {text}, by code", "counter")
            for code, count in now[field].items():
                if count:
                    refused.add_sample(refused.name, {"code": code}, count)
            yield refused
