"""Families of the engine and of the I/O loops, made from their counters at scrape time; nobody is stopped for it.

fastserve_request_stage_seconds{model,version,stage}   histogram, successful requests: queue, gather, execute, total;
                                                       encode: answers on their way from the engine to the socket
fastserve_batch_rows{model,version}                    histogram, sizes of executed batches
fastserve_requests_in_flight, _pending{model,version}  accepted and not answered; of these waiting
fastserve_requests_rejected_total{reason,...}          requests that no model ran, by reason (see _rejected)
fastserve_requests_failed_total{model,version}         requests that their backend failed
fastserve_requests_expired_executed_total{model,version}  handed to the device after their deadline: 0
fastserve_copied_bytes_total{model,version}            tensors copied on the host, into batches and out of them
fastserve_model_state, fastserve_model_load_seconds    of every version known
fastserve_connections{protocol}, ..._accepted_total    open now, and since the start
fastserve_streams                                      calls that front ends work on
fastserve_received_bytes_total, _sent_bytes_total      of all clients
fastserve_loop_lag_seconds{loop,quantile}              how long what is due waits for its thread (see _lag)
fastserve_traces_dropped_total                         traces that nobody took
fastserve_build_info{version}                          1

Triton's names beside them: metrics/triton.py; the response cache: metrics/response_cache.py;
shared memory: metrics/shared_memory.py; labels of versions: metrics/labels.py; page-locked and GPU memory:
metrics/pinned_memory.py; batches on GPUs: metrics/gpu_lanes.py.
Buckets: 1 us * 2^i, i = 0..24 (csrc/base/histogram.h); 1, 2, 4 ... rows.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import Versions, add_histogram, model_labels, single
from fastserve.metrics.gpu_lanes import gpu_lanes
from fastserve.metrics.host import Host
from fastserve.metrics.labels import labels
from fastserve.metrics.loop_lag import LoopLag
from fastserve.metrics.pinned_memory import pinned_memory
from fastserve.metrics.response_cache import response_cache
from fastserve.metrics.shared_memory import shared_memory
from fastserve.metrics.triton import triton
from fastserve.metrics.workers import workers

if TYPE_CHECKING:
    from fastserve._io import IoStatistics

# Status codes of refusals whose reason has a shorter name. The first six are shown from the start.
_REASONS = {
    "INVALID_ARGUMENT": "invalid_argument",
    "NOT_FOUND": "not_found",
    "RESOURCE_EXHAUSTED": "resource_exhausted",
    "UNAVAILABLE": "unavailable",
    "UNIMPLEMENTED": "unimplemented",
    "DEADLINE_EXCEEDED": "deadline",
}


class EngineCollector:
    """A prometheus_client collector. Thread: the one that scrapes, which has to be the loop's."""

    def __init__(
        self,
        core: _core.Engine,
        io_statistics: Callable[[], Iterable[IoStatistics]],
        loop_lag: LoopLag,
        version: str,
        *,
        io_threads: int = 0,
        host: Host | None = None,
    ) -> None:
        """`io_statistics`: one for each of `io_threads`, or the uvloop thread's when there are none."""
        self._core = core
        self._io_statistics = io_statistics
        self._loop_lag = loop_lag
        self._version = version
        self._io_threads = io_threads
        self._host = host or Host()

    def collect(self) -> Iterator[Metric]:
        statuses = self._core.status()
        versions = self._versions(statuses)
        loops = list(self._io_statistics())
        yield from triton(statuses, versions, self._host)
        yield from response_cache(self._core, versions)
        yield from labels(self._core)
        yield from workers(self._core)
        yield from shared_memory(self._core)
        yield from pinned_memory(statuses)
        yield from gpu_lanes()
        yield from _requests(versions)
        yield from _histograms(versions)
        yield _rejected(versions, loops)
        yield from _models(statuses)
        yield from _io(loops)
        yield _lag(self._loop_lag, loops if self._io_threads else [])
        yield single(
            "counter",
            "fastserve_traces_dropped_total",
            "Traces that nobody took",
            self._core.traces_dropped,
        )
        yield single("gauge", "fastserve_build_info", "Version that runs; always 1", 1, version=self._version)

    def _versions(self, statuses: list[_core.VersionStatus]) -> Versions:
        found = []
        for status in statuses:
            if status.state in ("READY", "DRAINING"):
                with contextlib.suppress(LookupError):  # unloaded meanwhile
                    found.append((status, self._core.statistics(status.model, status.version)))
        return found


def _requests(versions: Versions) -> Iterator[Metric]:
    in_flight = Metric("fastserve_requests_in_flight", "Accepted requests that have no answer yet", "gauge")
    pending = Metric("fastserve_requests_pending", "Accepted requests that wait for execution", "gauge")
    failed = Metric("fastserve_requests_failed_total", "Requests that their backend failed", "counter")
    expired = Metric(
        "fastserve_requests_expired_executed_total",
        "Requests handed to the device after their deadline; anything but 0 is a fault of the server",
        "counter",
    )
    copied = Metric(
        "fastserve_copied_bytes_total",
        "Bytes of tensors that were copied on the host, into batches and out of them",
        "counter",
    )
    for status, stats in versions:
        labels = model_labels(status)
        in_flight.add_sample(in_flight.name, labels, stats.in_flight)
        pending.add_sample(pending.name, labels, stats.pending)
        failed.add_sample(failed.name, labels, stats.fail.count - stats.other.count)
        expired.add_sample(expired.name, labels, stats.expired_executed)
        copied.add_sample(copied.name, labels, stats.copied_bytes)
    yield from (in_flight, pending, failed, expired, copied)


def _histograms(versions: Versions) -> Iterator[Metric]:
    """In pieces, one for each version: they are most of what a server of many models says."""
    for status, stats in versions:
        seconds = Metric(
            "fastserve_request_stage_seconds",
            "Time of a request by stage: queue, gather, execute, total (until the engine answered), "
            "encode (from there to the socket)",
            "histogram",
        )
        for stage, histogram in stats.stage_seconds.items():
            add_histogram(seconds, {**model_labels(status), "stage": stage}, histogram)
        yield seconds
    for status, stats in versions:
        rows = Metric("fastserve_batch_rows", "Rows of executed batches", "histogram")
        add_histogram(rows, model_labels(status), stats.batch_rows)
        yield rows


def _rejected(versions: Versions, loops: list[IoStatistics]) -> Metric:
    """Each rejected request once: with its model's labels when it was accepted or met a full queue, else by the status
    code that a front end answered."""
    family = Metric("fastserve_requests_rejected_total", "Requests that no model ran, by reason", "counter")
    for status, stats in versions:
        for reason, count in stats.requests_rejected.items():
            family.add_sample(family.name, {**model_labels(status), "reason": reason}, count)
    refused = Counter(dict.fromkeys(_REASONS.values(), 0))
    for io in loops:
        for code, count in io.requests_refused.items():
            if count:
                refused[_REASONS.get(code, code.lower())] += count
    for reason, count in sorted(refused.items()):
        family.add_sample(family.name, {"reason": reason}, count)
    return family


def _models(statuses: list[_core.VersionStatus]) -> Iterator[Metric]:
    states = Metric("fastserve_model_state", "1 for the state that a version is in", "gauge")
    loads = Metric("fastserve_model_load_seconds", "Time that loading and warming up took", "gauge")
    for status in statuses:
        states.add_sample(states.name, {**model_labels(status), "state": status.state}, 1)
        if status.load_seconds > 0:
            loads.add_sample(loads.name, model_labels(status), status.load_seconds)
    yield states
    yield loads


def _io(loops: list[IoStatistics]) -> Iterator[Metric]:
    connections = Metric("fastserve_connections", "Open connections", "gauge")
    accepted = Metric("fastserve_connections_accepted_total", "Connections accepted", "counter")
    for protocol, now, ever in (
        ("grpc", sum(io.grpc_connections for io in loops), sum(io.grpc_accepted for io in loops)),
        ("http", sum(io.http_connections for io in loops), sum(io.http_accepted for io in loops)),
    ):
        connections.add_sample(connections.name, {"protocol": protocol}, now)
        accepted.add_sample(accepted.name, {"protocol": protocol}, ever)
    yield connections
    yield accepted
    yield single(
        "gauge",
        "fastserve_streams",
        "Calls that front ends are working on",
        sum(io.streams for io in loops),
    )
    for name, text, total in (
        ("fastserve_received_bytes_total", "Bytes read from clients", sum(io.bytes_received for io in loops)),
        ("fastserve_sent_bytes_total", "Bytes written to clients", sum(io.bytes_sent for io in loops)),
    ):
        yield single("counter", name, text, total)


def _lag(loop_lag: LoopLag, threads: list[IoStatistics]) -> Metric:
    """loop="uvloop": lateness of timers over the last minute. loop="io-N": the longest pass of a native thread, for so
    long may a socket have waited; its quantile is 1."""
    family = Metric(
        "fastserve_loop_lag_seconds", "How long what was due waited for its thread, lately", "gauge"
    )
    for quantile, seconds in loop_lag.quantiles().items():
        family.add_sample(family.name, {"loop": "uvloop", "quantile": quantile}, seconds)
    for number, io in enumerate(threads):
        labels = {"loop": f"io-{number}", "quantile": "1"}
        family.add_sample(family.name, labels, io.longest_pass_seconds)
    return family
