"""Labels of versions (csrc/model/version_label.h). Nothing while there are none.

fastserve_version_weight{model,label,version}        what a label gives a version, ready or not
fastserve_label_requests_total{model,label,version}  requests that named the label, by the version that got them
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from fastserve import _core


def labels(core: _core.Engine) -> Iterator[Metric]:
    statuses = core.labels()
    if not statuses:
        return
    weights = Metric("fastserve_version_weight", "Weight of a version under a label", "gauge")
    requests = Metric("fastserve_label_requests_total", "Requests by label and version", "counter")
    for status in statuses:
        named = {"model": status.model, "label": status.label, "version": str(status.version)}
        weights.add_sample(weights.name, named, status.weight)
        requests.add_sample(requests.name, named, status.requests)
    yield weights
    yield requests
