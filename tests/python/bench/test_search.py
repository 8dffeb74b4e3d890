from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.bench.search import Search


def searched(search: Search, limit: float) -> list[float]:
    rates = []
    while (rate := search.next_rate()) is not None:
        rates.append(rate)
        search.tell(rate <= limit)
    return rates


@given(st.floats(2, 1e6), st.floats(0.01, 100))
def test_it_finds_the_edge_of_a_server_that_has_one(limit: float, factor: float) -> None:
    """From anywhere within a factor of 100."""
    search = Search(limit * factor, max_trials=40)
    searched(search, limit)
    assert search.best <= limit
    assert search.lowest_bad is not None
    assert search.lowest_bad <= max(search.best, 1.0) * 1.05 or search.best == 0


def test_the_way_there() -> None:
    assert searched(Search(100), 140) == [100, 150, 125, 137.5, 143.75]


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_trials_are_bounded(trials: int) -> None:
    assert len(searched(Search(1, max_trials=trials), 1e9)) == trials


def test_a_ceiling_is_not_passed() -> None:
    search = Search(10, highest=20)
    assert searched(search, 1e9) == [10, 15, 20]
    assert search.best == 20


def test_a_server_that_keeps_nothing() -> None:
    search = Search(8)
    assert searched(search, 0) == [8, 4, 2, 1]
    assert search.best == 0
