"""Sets of CPUs as texts."""

from __future__ import annotations

from collections.abc import Sequence

from fastserve.scheduling.limits import MAX_CPUS


def parse_cpus(text: str) -> tuple[int, ...]:
    """ "0-3,8" -> (0, 1, 2, 3, 8). ValueError says what is wrong."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise ValueError(f"got '{text[:60]}', want CPU numbers such as 0-3,8")
        low, high = int(first[:9]), int((last if dash else first)[:9])
        if high >= MAX_CPUS or low > high:
            raise ValueError(f"got '{text[:60]}', want ascending CPU numbers up to {MAX_CPUS - 1}")
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def cpus_text(cpus: Sequence[int]) -> str:
    """The reverse of `parse_cpus`, as short as can be."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and parts[-1][1] == cpu - 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
