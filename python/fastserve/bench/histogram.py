"""Counts of durations in buckets that grow with the value, as HdrHistogram has them. Pure.

A value in ns falls into one of 128 equal parts of its power of two, so a percentile is at most 0.8 % above the true one
and never below it. Minimum, maximum and mean are exact. Memory is fixed (115 KB), however many values come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

_PARTS_BITS = 8
_PARTS = 1 << _PARTS_BITS
_BUCKETS = (64 - _PARTS_BITS) * _PARTS
MAX_NS = (1 << 52) - 1  # 52 days; float64 counts exactly so far

Longs = npt.NDArray[np.int64]


def bucket_of(values: Longs) -> Longs:
    """0 to 255 as they are; above, the upper 8 bits and the exponent."""
    exponent = np.maximum(np.frexp(values.astype(np.float64))[1] - 1 - _PARTS_BITS, -1) + 1
    return np.asarray(exponent * (_PARTS // 2) + (values >> exponent), np.int64)


def last_of(bucket: int) -> int:
    """The largest value that falls into the bucket."""
    if bucket < _PARTS:
        return bucket
    exponent, part = divmod(bucket - _PARTS, _PARTS // 2)
    return ((part + _PARTS // 2 + 1) << (exponent + 1)) - 1


class Histogram:
    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.min_ns = 0
        self.max_ns = 0
        self._sum_ns = 0

    def add(self, values_ns: npt.ArrayLike) -> None:
        """Many at a time: a call costs as much as a thousand values."""
        values = np.clip(np.asarray(values_ns, np.int64), 0, MAX_NS)
        if not values.size:
            return
        buckets = bucket_of(values)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)
        low, high = int(values.min()), int(values.max())
        self.min_ns = low if not self.count else min(self.min_ns, low)
        self.max_ns = max(self.max_ns, high)
        self._sum_ns += int(values.sum())
        self.count += values.size

    def merge(self, other: Self) -> None:
        if not other.count:
            return
        self._counts += other._counts
        self.min_ns = other.min_ns if not self.count else min(self.min_ns, other.min_ns)
        self.max_ns = max(self.max_ns, other.max_ns)
        self._sum_ns += other._sum_ns
        self.count += other.count

    @property
    def mean_ns(self) -> float:
        return self._sum_ns / self.count if self.count else 0.0

    def percentile_ns(self, percent: float) -> int:
        """The smallest recorded duration that `percent` of all do not exceed (nearest rank); 0 without any."""
        if not self.count:
            return 0
        rank = max(1, int(np.ceil(percent / 100.0 * self.count - 1e-9)))
        if rank >= self.count:
            return self.max_ns
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return max(self.min_ns, min(last_of(bucket), self.max_ns))

    def to_dict(self) -> dict[str, Any]:
        """Sparse; `from_dict` reads it back."""
        used = np.flatnonzero(self._counts)
        return {
            "min_ns": self.min_ns,
            "max_ns": self.max_ns,
            "sum_ns": self._sum_ns,
            "buckets": [[last_of(int(at)), int(self._counts[at])] for at in used],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        made = cls()
        for last_ns, count in document["buckets"]:
            made._counts[int(bucket_of(np.array([last_ns], np.int64))[0])] += count
            made.count += count
        made.min_ns, made.max_ns = int(document["min_ns"]), int(document["max_ns"])
        made._sum_ns = int(document["sum_ns"])
        return made
