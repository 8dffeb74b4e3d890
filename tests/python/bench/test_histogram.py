from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.bench.histogram import MAX_NS, Histogram, bucket_of, last_of

durations = st.lists(st.integers(0, MAX_NS), min_size=1, max_size=200)


def of(values: list[int]) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


@given(st.integers(0, MAX_NS))
def test_a_bucket_holds_its_values_and_is_narrow(value: int) -> None:
    bucket = int(bucket_of(np.array([value]))[0])
    last = last_of(bucket)
    assert value <= last <= value * (1 + 1 / 128) + 1
    assert int(bucket_of(np.array([last]))[0]) == bucket
    if last < MAX_NS:
        assert int(bucket_of(np.array([last + 1]))[0]) == bucket + 1


@given(durations, st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_never_below_the_true_one(values: list[int], percent: float) -> None:
    rank = max(1, math.ceil(percent / 100 * len(values)))
    true = sorted(values)[rank - 1]
    assert true <= of(values).percentile_ns(percent) <= true * (1 + 1 / 128) + 1


@given(durations, durations)
def test_merging_is_adding(left: list[int], right: list[int]) -> None:
    merged = of(left)
    merged.merge(of(right))
    assert merged.to_dict() == of(left + right).to_dict()
    assert merged.count == len(left) + len(right)


@given(durations)
def test_through_json(values: list[int]) -> None:
    document = json.loads(json.dumps(of(values).to_dict()))
    again = Histogram.from_dict(document)
    assert again.to_dict() == document
    assert again.mean_ns == pytest.approx(sum(values) / len(values))


def test_without_any() -> None:
    empty = Histogram()
    empty.add([])
    empty.merge(Histogram())
    assert (empty.count, empty.mean_ns, empty.percentile_ns(99)) == (0, 0.0, 0)


def test_the_ends_are_exact() -> None:
    made = of([123_457, 999_999_937])
    assert (made.min_ns, made.max_ns) == (123_457, 999_999_937)
    assert made.percentile_ns(100) == 999_999_937
    made.add([-5, MAX_NS + 1])  # a clock that went back; longer than the server lives
    assert (made.min_ns, made.max_ns) == (0, MAX_NS)
