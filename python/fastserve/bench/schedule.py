"""When requests are due (open loop), and lists of levels. Pure: no clock.

An open loop decides the times before the run: a server that is slow does not make the arrivals wait, and a request's
latency counts from when it was due.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np

Arrival = Literal["poisson", "constant"]
_AT_A_TIME = 1024


def due_times(
    arrival: Arrival, rate: float, *, seed: int = 0, share: int = 0, shares: int = 1
) -> Iterator[int]:
    """ns from the start, rising without end. `rate`: requests a second of all shares together; this one's is
    rate / shares (several Poisson processes together are one again; constant ones take turns)."""
    if arrival == "constant":
        step, at = 1e9 * shares / rate, share
        number = 0
        while True:
            yield int(number * step + at * 1e9 / rate)
            number += 1
    random = np.random.default_rng((seed, share))
    now = 0.0
    while True:
        for gap in random.exponential(1e9 * shares / rate, _AT_A_TIME).tolist():
            now += gap
            yield int(now)


def levels(text: str, *, whole: bool) -> list[float]:
    """ "1,4,16", "10:50:10" (by adding), "1:64:*2" (by multiplying; *2 is also what LOW:HIGH means). ValueError says why."""
    found: list[float] = []
    for part in text.split(","):
        found += _range(part.strip())
    for value in found:
        if value <= 0 or not math.isfinite(value) or (whole and value != int(value)):
            raise ValueError(f"got {value:g}, expected {'a whole number' if whole else 'a number'} above 0")
    if len(found) > 1000:
        raise ValueError(f"{len(found)} levels; at most 1000")
    return found


def _range(part: str) -> list[float]:
    match = re.fullmatch(r"([\d.]+(?:e\d+)?)(?::([\d.]+(?:e\d+)?)(?::(\*?)([\d.]+))?)?", part)
    if not match:
        raise ValueError(f"got '{part}', expected a number, LOW:HIGH, LOW:HIGH:STEP or LOW:HIGH:*FACTOR")
    low = float(match[1])
    if match[2] is None:
        return [low]
    high, times, step = float(match[2]), match[3] == "*" or match[4] is None, float(match[4] or 2)
    if high < low or (times and step <= 1) or step <= 0 or low <= 0:
        raise ValueError(f"got '{part}': the range does not rise")
    found: list[float] = []
    value = low
    while value <= high * (1 + 1e-9) and len(found) <= 1000:
        found.append(value)
        value = value * step if times else value + step
    return found
