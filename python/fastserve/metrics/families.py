"""Small pieces of which the families are made."""

from __future__ import annotations

import itertools

from prometheus_client.core import Metric

from fastserve import _core

Versions = list[tuple[_core.VersionStatus, _core.VersionStatistics]]


def model_labels(status: _core.VersionStatus) -> dict[str, str]:
    return {"model": status.model, "version": str(status.version)}


def single(kind: str, name: str, text: str, value: float, **labels: str) -> Metric:
    family = Metric(name, text, kind)
    family.add_sample(name, labels, value)
    return family


def add_histogram(family: Metric, labels: dict[str, str], histogram: _core.Histogram) -> None:
    bounds = [repr(bound) for bound in histogram.upper_bounds] + ["+Inf"]
    cumulative = list(itertools.accumulate(histogram.counts))
    for bound, count in zip(bounds, cumulative, strict=True):
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{family.name}_sum", labels, histogram.sum)
    family.add_sample(f"{family.name}_count", labels, cumulative[-1])
