"""What is impossible, however it was spelled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastserve.scheduling.knobs import Instances, Queue, Scheduling, WarmUp
from fastserve.scheduling.limits import (
    MAX_CPUS,
    MAX_DELAY_US,
    MAX_INSTANCES,
    MAX_PRIORITY_LEVELS,
    MAX_REQUESTS,
    MAX_RESOURCE_COUNT,
    MAX_ROWS,
    MAX_TIMEOUT_MS,
    MAX_WARM_UP_RUNS,
)


class Fault(NamedTuple):
    """What is impossible: the path of the value in Scheduling, ("priorities", "default"), and why."""

    path: tuple[str | int, ...]
    text: str

    def worded(self) -> str:
        """ "priorities.default: got 4, want 1 to 3"."""
        name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"{name.removeprefix('.')}: {self.text}"


def faults(wanted: Scheduling, max_batch_rows: int) -> Iterator[Fault]:
    """`max_batch_rows`: of the model; 0: it does not batch, -1: it decides by itself."""
    target = wanted.target_p99_ms
    if target is not None and not (math.isfinite(target) and 0 <= target <= MAX_DELAY_US / 1000):
        yield Fault(("target_p99_ms",), f"got {target:.12g}, want 0 (none) to {MAX_DELAY_US // 1000}")
    if not 0 <= wanted.max_queue_delay_us <= MAX_DELAY_US:
        got = wanted.max_queue_delay_us
        yield Fault(("max_queue_delay_us",), f"got {got}, want at most {MAX_DELAY_US} (one hour)")
    yield from _batch_size_faults(wanted, max_batch_rows)
    yield from _queue_faults(("queue",), wanted.queue, wanted.preserve_order)
    yield from _priority_faults(wanted)
    yield from _instance_faults(wanted.instances)
    for index, sample in enumerate(wanted.warm_up):
        yield from _warm_up_faults(("warm_up", index), sample, max_batch_rows)


def _batch_size_faults(wanted: Scheduling, max_rows: int) -> Iterator[Fault]:
    for index, rows in enumerate(wanted.preferred_batch_sizes):
        if rows < 1:
            yield Fault(("preferred_batch_sizes", index), f"got {rows}, want at least 1")
        elif 0 < max_rows < rows:
            yield Fault(("preferred_batch_sizes", index), f"{rows} is above max_batch_size {max_rows}")
    allowed = wanted.allowed_batch_sizes
    for index, rows in enumerate(allowed):
        if not 1 <= rows <= MAX_ROWS:
            yield Fault(("allowed_batch_sizes", index), f"got {rows}, want 1 to {MAX_ROWS}")
        elif index and rows <= allowed[index - 1]:
            yield Fault(
                ("allowed_batch_sizes", index),
                f"{rows} comes after {allowed[index - 1]}, want them ascending",
            )
    if allowed and max_rows > 0 and allowed[-1] != max_rows:
        text = f"the last is {allowed[-1]}, want max_batch_size, which is {max_rows}"
        yield Fault(("allowed_batch_sizes", len(allowed) - 1), text)
    rows = wanted.max_request_rows
    if rows and not max(max_rows, 1) <= rows <= MAX_ROWS:
        yield Fault(("max_request_rows",), f"got {rows}, want {max(max_rows, 1)} (a batch) to {MAX_ROWS}")
    if max_rows == 0:
        for name in ("preferred_batch_sizes", "allowed_batch_sizes", "max_request_rows"):
            if getattr(wanted, name):
                yield Fault((name,), "needs max_batch_size above 0")


def _queue_faults(path: tuple[str | int, ...], queue: Queue, ordered: bool) -> Iterator[Fault]:
    if not 0 <= queue.max_requests <= MAX_REQUESTS:
        yield Fault(
            (*path, "max_requests"), f"got {queue.max_requests}, want 0 (no own limit) to {MAX_REQUESTS}"
        )
    if not 0 <= queue.timeout_ms <= MAX_TIMEOUT_MS:  # false for NaN too
        got = f"{queue.timeout_ms:.12g}"
        yield Fault((*path, "timeout_ms"), f"got {got} ms, want 0 (none) to {MAX_TIMEOUT_MS} ms (one day)")
    if queue.on_timeout not in {"reject", "delay"}:
        yield Fault((*path, "on_timeout"), f"got '{queue.on_timeout}', want reject or delay")
    if ordered and queue.on_timeout == "delay" and queue.timeout_ms:
        yield Fault((*path, "on_timeout"), "delay does not go with answers in the order of the requests")


def _priority_faults(wanted: Scheduling) -> Iterator[Fault]:
    levels = wanted.priorities.levels
    if not 0 <= levels <= MAX_PRIORITY_LEVELS:
        yield Fault(("priorities", "levels"), f"got {levels}, want 0 to {MAX_PRIORITY_LEVELS}")
        return
    if wanted.preserve_order and levels > 1:
        text = f"got {levels}, but answers in the order of the requests allow one level"
        yield Fault(("priorities", "levels"), text)
    if not 0 <= wanted.priorities.default <= levels:
        got = wanted.priorities.default
        want = f"want 1 to {levels}" if levels else "but no priority levels are set"
        yield Fault(("priorities", "default"), f"got {got}, {want}")
    for level, queue in wanted.priorities.queues.items():
        path = ("priorities", "queues", level)
        if not 1 <= level <= levels:
            want = f"want 1 to {levels}" if levels else "but no priority levels are set"
            yield Fault(path, f"got priority {level}, {want}")
        yield from _queue_faults(path, queue, wanted.preserve_order)


def _instance_faults(groups: Sequence[Instances]) -> Iterator[Fault]:
    for index, group in enumerate(groups):
        path = ("instances", index)
        if not 1 <= group.count <= MAX_INSTANCES:
            yield Fault((*path, "count"), f"got {group.count}, want 1 to {MAX_INSTANCES}")
        if any(not 0 <= cpu < MAX_CPUS for cpu in group.cpus):
            got = next(cpu for cpu in group.cpus if not 0 <= cpu < MAX_CPUS)
            yield Fault((*path, "cpus"), f"got CPU {got}, want 0 to {MAX_CPUS - 1}")
        if not 0 <= group.rate_priority < 1 << 32:
            yield Fault((*path, "rate_priority"), f"got {group.rate_priority}, want at least 0")
        seen: set[str] = set()
        for number, resource in enumerate(group.resources):
            at = (*path, "resources", number)
            if not resource.name:
                yield Fault((*at, "name"), "is empty")
            elif resource.name in seen:
                yield Fault((*at, "name"), f"'{resource.name}' is given twice")
            seen.add(resource.name)
            if not 1 <= resource.count <= MAX_RESOURCE_COUNT:
                yield Fault((*at, "count"), f"got {resource.count}, want 1 to {MAX_RESOURCE_COUNT}")
    total = sum(group.count for group in groups)
    if total > MAX_INSTANCES >= max((group.count for group in groups), default=0):
        yield Fault(("instances",), f"got {total} instances in all, want {MAX_INSTANCES} or fewer")


def _warm_up_faults(path: tuple[str | int, ...], sample: WarmUp, max_rows: int) -> Iterator[Fault]:
    most = {0: 1, -1: MAX_ROWS}.get(max_rows, max_rows)
    if not 0 <= sample.batch_size <= most:
        why = "max_batch_size" if max_rows > 0 else "the model does not batch"
        yield Fault((*path, "batch_size"), f"got {sample.batch_size}, want 1 to {most} ({why})")
    if not 1 <= sample.count <= MAX_WARM_UP_RUNS:
        yield Fault((*path, "count"), f"got {sample.count}, want 1 to {MAX_WARM_UP_RUNS}")
    if not sample.inputs:
        yield Fault((*path, "inputs"), "is empty")
    for name, value in sample.inputs.items():
        wrong = [dim for dim in value.dims if dim < 1]
        if wrong or not value.dims:
            got = f"got {wrong[0]}" if wrong else "is empty"
            yield Fault((*path, "inputs", name, "dims"), f"{got}, want sizes of at least 1")
