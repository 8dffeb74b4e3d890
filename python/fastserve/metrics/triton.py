"""Triton's names with Triton's labels and meanings (contracts §1c), so that dashboards made for it work.

`*_duration_us` are running totals, to be divided by the success count. Those of the cache are in metrics/response_cache.py, of
GPUs in metrics/gpu.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import Versions, model_labels, single
from fastserve.metrics.host import Host

Value = Callable[[_core.VersionStatistics], float]


def _us(total: _core.StageTotal) -> float:
    return total.ns // 1000


_COUNTERS: tuple[tuple[str, str, Value], ...] = (
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
    ("REJECTED", lambda s: s.rejected.count),  # queue full, too late, queue timeout
    ("CANCELED", lambda s: s.cancel.count),
    ("BACKEND", lambda s: s.fail.count - s.other.count),
    (
        "OTHER",
        lambda s: s.other.count,
    ),  # deadline passed, version unloaded, client's memory too small or gone
)


def triton(statuses: list[_core.VersionStatus], versions: Versions, host: Host) -> Iterator[Metric]:
    for name, text, value in _COUNTERS:
        family = Metric(name, text, "counter")
        for status, stats in versions:
            family.add_sample(name, model_labels(status), value(stats))
        yield family
    failures = Metric("nv_inference_request_failure", "Failed inference requests by reason", "counter")
    pending = Metric("nv_inference_pending_request_count", "Requests that wait for execution", "gauge")
    for status, stats in versions:
        for reason, value in _FAILURES:
            failures.add_sample(failures.name, {**model_labels(status), "reason": reason}, value(stats))
        pending.add_sample(pending.name, model_labels(status), stats.pending)
    yield failures
    yield pending
    loads = Metric("nv_model_load_duration_secs", "Time that loading the version took", "gauge")
    for status in statuses:
        if status.load_seconds > 0:
            loads.add_sample(loads.name, model_labels(status), status.load_seconds)
    yield loads
    yield from _cpu(host)


def _cpu(host: Host) -> Iterator[Metric]:
    memory = host.memory_bytes()
    for name, text, value in (
        ("nv_cpu_utilization", "Busy share of all CPUs since the last scrape, 0..1", host.cpu_utilization()),
        ("nv_cpu_memory_total_bytes", "Memory of the machine", memory and memory[0]),
        ("nv_cpu_memory_used_bytes", "Memory of the machine that is not available", memory and memory[1]),
    ):
        if value is not None:
            yield single("gauge", name, text, value)
