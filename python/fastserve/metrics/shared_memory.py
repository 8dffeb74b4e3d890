"""Shared memory that clients registered; nothing while it is off.

fastserve_shared_memory_regions, _bytes   mapped now: registered, or unregistered and still used by requests
fastserve_shared_memory_broken_regions    registered ones that their owner truncated
fastserve_shared_memory_refused_total     registrations that were refused
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import single


def shared_memory(core: _core.Engine) -> Iterator[Metric]:
    totals = core.shared_memory()
    if not totals["allowed"]:
        return
    prefix = "fastserve_shared_memory"
    yield single("gauge", f"{prefix}_regions", "Regions of clients that are mapped", totals["regions"])
    yield single("gauge", f"{prefix}_bytes", "Bytes of these regions", totals["bytes"])
    yield single(
        "gauge",
        f"{prefix}_broken_regions",
        "Registered regions that their owner truncated",
        totals["broken"],
    )
    yield single("counter", f"{prefix}_refused_total", "Registrations that were refused", totals["refused"])
