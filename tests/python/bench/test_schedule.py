from __future__ import annotations

from itertools import islice, takewhile

import numpy as np
import pytest

from fastserve.bench.schedule import due_times, levels

SECOND = 1_000_000_000


def test_constant_shares_take_turns() -> None:
    shares = [list(islice(due_times("constant", 1000, share=k, shares=4), 5)) for k in range(4)]
    together = sorted(time for share in shares for time in share)
    assert together == [n * 1_000_000 for n in range(20)]


def test_constant_does_not_drift() -> None:
    assert next(islice(due_times("constant", 3), 3_000_000, None)) == 1_000_000 * SECOND


@pytest.mark.parametrize("shares", [1, 3])
def test_poisson_has_the_rate_and_the_gaps(shares: int) -> None:
    times = np.sort(
        np.concatenate(
            [
                np.fromiter(
                    takewhile(lambda t: t < 20 * SECOND, due_times("poisson", 2000, share=k, shares=shares)),
                    np.int64,
                )
                for k in range(shares)
            ]
        )
    )
    assert len(times) == pytest.approx(40_000, rel=0.03)  # six standard deviations
    gaps = np.diff(times) / 1e9
    assert gaps.mean() == pytest.approx(1 / 2000, rel=0.03)
    assert gaps.std() == pytest.approx(1 / 2000, rel=0.05)  # an exponential's is its mean
    assert (gaps > 3 / 2000).mean() == pytest.approx(np.exp(-3), rel=0.2)


def test_a_seed_is_a_schedule() -> None:
    def some(seed: int, share: int) -> list[int]:
        return list(islice(due_times("poisson", 10, seed=seed, share=share, shares=2), 5))

    assert some(1, 0) == some(1, 0)
    assert len({tuple(some(seed, share)) for seed in (1, 2) for share in (0, 1)}) == 4


@pytest.mark.parametrize(
    ("text", "whole", "wanted"),
    [
        ("4", True, [4]),
        ("1,8, 32", True, [1, 8, 32]),
        ("1:64", True, [1, 2, 4, 8, 16, 32, 64]),
        ("1:100:*10", True, [1, 10, 100]),
        ("10:50:20", True, [10, 30, 50]),
        ("1:5:2,9", True, [1, 3, 5, 9]),
        ("0.5:1:0.25", False, [0.5, 0.75, 1]),
        ("1e3", False, [1000]),
    ],
)
def test_levels(text: str, whole: bool, wanted: list[float]) -> None:
    assert levels(text, whole=whole) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "got ''"),
        ("a", "got 'a'"),
        ("-1", "got '-1'"),
        ("0", "got 0, expected a whole number above 0"),
        ("1.5", "got 1.5, expected a whole number"),
        ("8:1", "does not rise"),
        ("1:8:*1", "does not rise"),
        ("0:8", "does not rise"),
        ("1:8:0", "does not rise"),
        ("1:2000:1", "at most 1000"),
        ("1:1e15:1", "at most 1000"),
        ("1..2", "could not convert"),
    ],
)
def test_bad_levels(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        levels(text, whole=True)
    assert words in str(caught.value)


def test_a_thousand_levels() -> None:
    assert len(levels("1:1000:1", whole=True)) == 1000
