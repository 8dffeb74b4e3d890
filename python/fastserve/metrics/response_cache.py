"""The response cache: Triton's counters for each model, and what the cache that all models share holds.

nv_cache_num_hits_per_model, _num_misses_per_model{model,version}            requests that were looked up
nv_cache_hit_duration_per_model, _miss_duration_per_model{model,version}     microseconds of looking up (a miss: and keeping)
fastserve_response_cache_bytes, _capacity_bytes, _entries                    now
fastserve_response_cache_evictions_total, _too_large_total                   that left for want of room, that were never kept

Nothing while the server has no cache, as Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import Versions, model_labels, single

_PER_MODEL: tuple[tuple[str, str, Callable[[_core.VersionStatistics], float]], ...] = (
    ("nv_cache_num_hits_per_model", "Response cache hits", lambda s: s.cache_hit.count),
    ("nv_cache_num_misses_per_model", "Response cache misses", lambda s: s.cache_miss.count),
    (
        "nv_cache_hit_duration_per_model",
        "Cumulative time of response cache hits, in microseconds",
        lambda s: s.cache_hit.ns // 1000,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Cumulative time of looking up and inserting at response cache misses, in microseconds",
        lambda s: s.cache_miss.ns // 1000,
    ),
)


def response_cache(core: _core.Engine, versions: Versions) -> Iterator[Metric]:
    totals = core.response_cache()
    if not totals["capacity_bytes"]:
        return
    for name, text, value in _PER_MODEL:
        family = Metric(name, text, "counter")
        for status, stats in versions:
            family.add_sample(name, model_labels(status), value(stats))
        yield family
    prefix = "fastserve_response_cache"
    yield single("gauge", f"{prefix}_bytes", "Bytes of kept answers", totals["bytes"])
    yield single("gauge", f"{prefix}_capacity_bytes", "Bytes that it may hold", totals["capacity_bytes"])
    yield single("gauge", f"{prefix}_entries", "Answers that it holds", totals["entries"])
    yield single("counter", f"{prefix}_evictions_total", "Answers that made room", totals["evictions"])
    yield single(
        "counter",
        f"{prefix}_too_large_total",
        "Answers that were not kept, because they are larger than the cache",
        totals["too_large"],
    )
