"""fastserve_worker_up{model,version,instance}              1: it has a process that takes batches
fastserve_worker_restarts_total{model,version,instance}  processes that were started after another one ended

Of models that run in processes of their own (backends python, onnxruntime, pytorch); without such models there is nothing."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from fastserve import _core


def workers(core: _core.Engine) -> Iterator[Metric]:
    reports = core.workers()
    if not reports:
        return
    up = Metric(
        "fastserve_worker_up", "Whether the instance has a worker process that takes batches", "gauge"
    )
    restarts = Metric(
        "fastserve_worker_restarts_total",
        "Worker processes that were started after another one ended",
        "counter",
    )
    for report in reports:
        labels = {"model": report.model, "version": str(report.version), "instance": report.instance}
        up.add_sample(up.name, labels, float(report.state == "UP"))
        restarts.add_sample(restarts.name, labels, report.restarts)
    yield from (up, restarts)
