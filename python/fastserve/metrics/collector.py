"""Families of the engine and of the I/O loops, made from their counters at scrape time.

Triton's names with its labels (contracts §1c: dashboards made for Triton work), then our own in seconds.
Triton's `*_duration_us` are running totals, to be divided by the success count; quantiles come from our
histograms.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from fastserve import _core

if TYPE_CHECKING:
    from fastserve._io import IoStatistics

Versions = list[tuple[_core.VersionStatus, _core.VersionStatistics]]
Value = Callable[[_core.VersionStatistics], float]


def _us(total: _core.StageTotal) -> float:
    return total.ns // 1000


_TRITON_COUNTERS: tuple[tuple[str, str, Value], ...] = (
    ("nv_inference_request_success", "Successful inference requests", lambda s: s.success.count),
    ("nv_inference_count", "Inferences performed (a batch of n rows counts n)", lambda s: s.inference_count),
    ("nv_inference_exec_count", "Model executions (a batch counts 1)", lambda s: s.execution_count),
    ("nv_inference_request_duration_us", "Cumulative time of successful requests", lambda s: _us(s.success)),
    ("nv_inference_queue_duration_us", "Cumulative time that requests waited", lambda s: _us(s.queue)),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative time of preparing inputs",
        lambda s: _us(s.compute_input),
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative time of execution",
        lambda s: _us(s.compute_infer),
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative time of taking outputs",
        lambda s: _us(s.compute_output),
    ),
)

_FAILURES: tuple[tuple[str, Value], ...] = (
    ("REJECTED", lambda s: s.rejected.count),
    ("CANCELED", lambda s: s.cancel.count),
    ("BACKEND", lambda s: s.fail.count),
    ("OTHER", lambda s: 0),
)


class EngineCollector:
    """A prometheus_client collector. Thread: the one that scrapes, which has to be the loop's (IoLoop has one
    thread)."""

    def __init__(
        self,
        core: _core.Engine,
        io_statistics: Callable[[], Iterable[IoStatistics]],
        loop_lag_s: Callable[[], float],
        version: str,
    ) -> None:
        self._core = core
        self._io_statistics = io_statistics
        self._loop_lag_s = loop_lag_s
        self._version = version

    def collect(self) -> Iterator[Metric]:
        versions = self._versions()
        yield from _triton(versions)
        yield from _stages(versions)
        yield _states(self._core.status())
        yield from _io(list(self._io_statistics()))
        yield _single(
            "gauge",
            "fastserve_loop_lag_seconds",
            "Worst lateness of the event loop since the last scrape",
            self._loop_lag_s(),
        )
        build = Metric("fastserve_build_info", "Version that runs; always 1", "gauge")
        build.add_sample("fastserve_build_info", {"version": self._version}, 1)
        yield build

    def _versions(self) -> Versions:
        found = []
        for status in self._core.status():
            if status.state in ("READY", "DRAINING"):
                with contextlib.suppress(LookupError):  # unloaded meanwhile
                    found.append((status, self._core.statistics(status.model, status.version)))
        return found


def _labels(status: _core.VersionStatus) -> dict[str, str]:
    return {"model": status.model, "version": str(status.version)}


def _single(kind: str, name: str, text: str, value: float) -> Metric:
    family = Metric(name, text, kind)
    family.add_sample(name, {}, value)
    return family


def _triton(versions: Versions) -> Iterator[Metric]:
    for name, text, value in _TRITON_COUNTERS:
        family = Metric(name, text, "counter")
        for status, stats in versions:
            family.add_sample(name, _labels(status), value(stats))
        yield family
    failures = Metric("nv_inference_request_failure", "Failed inference requests by reason", "counter")
    pending = Metric("nv_inference_pending_request_count", "Requests that wait for execution", "gauge")
    for status, stats in versions:
        for reason, value in _FAILURES:
            failures.add_sample(failures.name, {**_labels(status), "reason": reason}, value(stats))
        pending.add_sample(pending.name, _labels(status), stats.pending)
    yield failures
    yield pending


def _stages(versions: Versions) -> Iterator[Metric]:
    in_flight = Metric("fastserve_requests_in_flight", "Accepted requests that have no answer yet", "gauge")
    seconds = Metric("fastserve_stage_seconds", "Time of a request in each stage and in total", "histogram")
    for status, stats in versions:
        in_flight.add_sample(in_flight.name, _labels(status), stats.in_flight)
        for stage, histogram in stats.stage_seconds.items():
            _add_histogram(seconds, {**_labels(status), "stage": stage}, histogram)
    yield in_flight
    yield seconds


def _add_histogram(family: Metric, labels: dict[str, str], histogram: _core.Histogram) -> None:
    bounds = [repr(bound) for bound in histogram.upper_bounds] + ["+Inf"]
    cumulative = list(itertools.accumulate(histogram.counts))
    for bound, count in zip(bounds, cumulative, strict=True):
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{family.name}_sum", labels, histogram.sum)
    family.add_sample(f"{family.name}_count", labels, cumulative[-1])


def _states(statuses: list[_core.VersionStatus]) -> Metric:
    family = Metric("fastserve_model_state", "1 for the state that a version is in", "gauge")
    for status in statuses:
        family.add_sample(family.name, {**_labels(status), "state": status.state}, 1)
    return family


def _io(loops: list[IoStatistics]) -> Iterator[Metric]:
    connections = Metric("fastserve_connections", "Open connections", "gauge")
    connections.add_sample(connections.name, {"protocol": "grpc"}, sum(io.grpc_connections for io in loops))
    connections.add_sample(connections.name, {"protocol": "http"}, sum(io.http_connections for io in loops))
    yield connections
    yield _single(
        "gauge",
        "fastserve_streams",
        "Requests that front ends are working on",
        sum(io.streams for io in loops),
    )
    for name, text, total in (
        ("fastserve_received_bytes_total", "Bytes read from clients", sum(io.bytes_received for io in loops)),
        ("fastserve_sent_bytes_total", "Bytes written to clients", sum(io.bytes_sent for io in loops)),
    ):
        yield _single("counter", name, text, total)
    refused: dict[str, int] = {}
    for io in loops:
        for reason, count in io.requests_refused.items():
            refused[reason] = refused.get(reason, 0) + count
    family = Metric("fastserve_requests_refused_total", "Requests refused before a model saw them", "counter")
    for reason, count in sorted(refused.items()):
        family.add_sample(family.name, {"reason": reason}, count)
    yield family
