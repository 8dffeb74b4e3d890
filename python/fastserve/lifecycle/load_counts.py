"""What the metrics port says about loads (fastserve.metrics.lifecycle): counts by model, with a bound on their number."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

_K = TypeVar("_K")

MOST_SERIES = 4096  # of each counter; what comes beyond is counted under the model "other"


class LoadCounts:
    """Thread: the loop's."""

    def __init__(self, most_series: int = MOST_SERIES) -> None:
        self._most = most_series
        self.failures: Counter[tuple[str, str, str]] = Counter()  # model, version, reason
        self.retries: Counter[tuple[str, str]] = Counter()  # model, version
        self.timeouts = 0

    def failed(self, model: str, version: int | None, reason: str) -> None:
        """`reason`: one of a few words."""
        key = (model, "" if version is None else str(version), reason)
        self.failures[key if self._has_room(self.failures, key) else ("other", "", reason)] += 1

    def retried(self, model: str, version: int) -> None:
        key = (model, str(version))
        self.retries[key if self._has_room(self.retries, key) else ("other", "")] += 1

    def _has_room(self, counter: Counter[_K], key: _K) -> bool:
        return key in counter or len(counter) < self._most
