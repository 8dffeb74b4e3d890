"""The highest rate that keeps a promise, by growing until it breaks and halving the interval then. Pure.

search = Search(first=1000)
while (rate := search.next_rate()) is not None:
    search.tell(measure(rate))          # True: kept
search.best                             # 0.0: not even the least
"""

from __future__ import annotations

GROWTH = 1.5
LEAST_RATE = 1.0


class Search:
    """Ends when the known good and the known bad rate are within `tolerance` of each other, or after `max_trials`."""

    def __init__(
        self, first: float, *, highest: float = float("inf"), tolerance: float = 0.05, max_trials: int = 16
    ) -> None:
        self.best = 0.0
        self.lowest_bad: float | None = None
        self.trials = 0
        self._highest, self._tolerance, self._max_trials = highest, tolerance, max_trials
        self._next: float | None = min(max(first, LEAST_RATE), highest)

    def next_rate(self) -> float | None:
        return self._next

    def tell(self, kept: bool) -> None:
        rate = self._next
        assert rate is not None, "the search has ended"
        self.trials += 1
        if kept:
            self.best = max(self.best, rate)
        else:
            self.lowest_bad = rate if self.lowest_bad is None else min(self.lowest_bad, rate)
        self._next = None if self.trials >= self._max_trials else self._after()

    def _after(self) -> float | None:
        if self.lowest_bad is None:
            return None if self.best >= self._highest else min(self.best * GROWTH, self._highest)
        if not self.best:
            return None if self.lowest_bad <= LEAST_RATE else max(self.lowest_bad / 2, LEAST_RATE)
        if self.lowest_bad <= self.best * (1 + self._tolerance):
            return None
        return (self.best + self.lowest_bad) / 2
