"""Remote repositories and their cache.

fastserve_remote_downloaded_bytes_total, _versions_total   since the start
fastserve_remote_cache_bytes                               what lies in the cache, after the last look
fastserve_remote_failures_total{code}                      stores that could not be read, versions that were refused
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import Metric

from fastserve.metrics.families import single


class Figures(Protocol):
    @property
    def downloaded_bytes(self) -> int: ...
    @property
    def downloaded_versions(self) -> int: ...
    @property
    def cache_bytes(self) -> int: ...
    @property
    def failures(self) -> Mapping[str, int]: ...


class RemoteCollector:
    """A prometheus_client collector."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        f = self._figures
        prefix = "fastserve_remote"
        yield single(
            "counter", f"{prefix}_downloaded_bytes_total", "Bytes of models downloaded", f.downloaded_bytes
        )
        versions = "Versions of models downloaded"
        yield single("counter", f"{prefix}_downloaded_versions_total", versions, f.downloaded_versions)
        yield single(
            "gauge", f"{prefix}_cache_bytes", "Bytes of downloaded models on this machine", f.cache_bytes
        )
        text = "Stores that could not be read, and versions that were refused"
        failures = Metric(f"{prefix}_failures", text, "counter")
        for code, count in sorted(dict(f.failures).items()):
            failures.add_sample(f"{prefix}_failures_total", {"code": code}, count)
        yield failures
