"""Counts of loads as Prometheus text."""

from __future__ import annotations

from fastserve.lifecycle.load_counts import LoadCounts
from fastserve.metrics import LifecycleCollector, exposition


def lines(counts: LoadCounts, hung: int = 0) -> list[str]:
    text = exposition(LifecycleCollector(counts, lambda: hung).collect()).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_what_there_is() -> None:
    counts = LoadCounts()
    counts.failed("m", 2, "unavailable")
    counts.failed("m", 2, "unavailable")
    counts.failed("m", None, "configuration")
    counts.retried("m", 2)
    counts.timeouts = 3
    assert lines(counts, hung=1) == [
        'fastserve_model_load_failures_total{model="m",version="2",reason="unavailable"} 2',
        'fastserve_model_load_failures_total{model="m",version="",reason="configuration"} 1',
        'fastserve_model_load_retries_total{model="m",version="2"} 1',
        "fastserve_model_load_timeouts_total 3",
        "fastserve_hung_loads 1",
    ]


def test_the_number_of_series_is_bounded() -> None:
    counts = LoadCounts(most_series=3)
    for version in range(1, 6):
        counts.failed("m", version, "io")
        counts.retried("m", version)
    counts.failed("m", 1, "io")
    assert [key[1] for key in counts.failures] == ["1", "2", "3", ""]
    assert counts.failures["m", "1", "io"] == 2
    assert counts.failures["other", "", "io"] == 2
    assert counts.retries["other", ""] == 2
