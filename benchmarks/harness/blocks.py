"""Interleaved blocks and what is said about them.

A block is one short measurement of one contender under one load. The blocks run A B C, C B A, A B C, ... so that a slow
drift of the machine hits all of them alike; ratios are taken pair by pair within a round, and their median is reported.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Sample = dict[str, Any]


@dataclass(frozen=True)
class Block:
    load: str  # "16x1": what is asked
    contender: str  # "fastserve": who is asked
    measure: Callable[[], Sample]


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}–{_short(self.high)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: Sequence[float]) -> Spread | None:
    return Spread(statistics.median(values), min(values), max(values)) if values else None


@dataclass
class Samples:
    """The samples of every (load, contender), in the order of the rounds."""

    by_block: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)

    def loads(self) -> list[str]:
        return list(dict.fromkeys(load for load, _ in self.by_block))

    def contenders(self) -> list[str]:
        return list(dict.fromkeys(contender for _, contender in self.by_block))

    def values(self, load: str, contender: str, metric: str) -> list[float]:
        found = [sample.get(metric) for sample in self.by_block.get((load, contender), [])]
        return [value for value in found if value is not None]

    def spread(self, load: str, contender: str, metric: str) -> Spread | None:
        return spread(self.values(load, contender, metric))

    def ratio(self, load: str, one: str, other: str, metric: str) -> Spread | None:
        """one / other, round by round."""
        pairs = zip(self.values(load, one, metric), self.values(load, other, metric), strict=False)
        return spread([a / b for a, b in pairs if b > 0])


def interleave(blocks: Sequence[Block], rounds: int) -> Samples:
    samples = Samples({(block.load, block.contender): [] for block in blocks})
    for number in range(rounds):
        for block in blocks if number % 2 == 0 else reversed(blocks):
            started = time.monotonic()
            sample = block.measure()
            samples.by_block[block.load, block.contender].append(sample)
            took = time.monotonic() - started
            print(
                f"  round {number + 1}/{rounds}  {block.load:14} {block.contender:22} {took:5.1f} s",
                file=sys.stderr,
            )
    return samples
