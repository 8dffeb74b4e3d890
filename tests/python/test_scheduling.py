"""Every knob arrives in the engine's LoadSpec, and limits hold at their edges."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from fastserve import Engine, InvalidArgument, Tensor, _core
from fastserve.lifecycle import VersionSpec
from fastserve.scheduling import (
    MAX_DELAY_US,
    MAX_INSTANCES,
    MAX_PRIORITY_LEVELS,
    MAX_REQUESTS,
    MAX_RESOURCE_COUNT,
    MAX_ROWS,
    MAX_TIMEOUT_MS,
    MAX_WARM_UP_RUNS,
    Instances,
    Priorities,
    Queue,
    RateLimit,
    Resource,
    Scheduling,
    WarmUp,
    WarmUpInput,
    cpus_text,
    faults,
    parse_cpus,
)

ROW = WarmUpInput("FP32", (2,), "data", b"12345678")


def spec_of(wanted: Scheduling, rows: int = 8) -> _core.LoadSpec:
    return VersionSpec("m", 1, "identity", max_batch_rows=rows, scheduling=wanted).to_core()


# Knob -> (a value other than its default, what LoadSpec says of it).
KNOBS: dict[str, tuple[Any, Any]] = {
    "target_p99_ms": (2.5, lambda s: s.target_p99_us == 2500),
    "max_queue_delay_us": (70, lambda s: s.max_queue_delay_us == 70),
    "preferred_batch_sizes": ((8, 2, 8), lambda s: s.preferred_rows == [2, 8]),
    "allowed_batch_sizes": ((1, 8), lambda s: s.allowed_rows == [1, 8]),
    "max_request_rows": (64, lambda s: s.max_request_rows == 64),
    "preserve_order": (True, lambda s: s.queue.preserve_ordering),
    "queue": (
        Queue(9, 1.5, "delay", False),
        lambda s: policy(s.queue.default_policy) == (9, 1500, "delay", False),
    ),
    "priorities": (
        Priorities(3, 2, {1: Queue(4)}),
        lambda s: (
            (s.queue.priority_levels, s.queue.default_priority) == (3, 2)
            and {k: policy(v) for k, v in s.queue.by_priority.items()} == {1: (4, 0, "reject", True)}
        ),
    ),
    "instances": (
        (Instances(2, "g", (0, 3), (Resource("R", 5, is_global=True),), 7), Instances()),
        lambda s: (
            s.instance_count == 3
            and (s.groups[0].name, s.groups[0].count, s.groups[0].cpus) == ("g", 2, [0, 3])
            and s.groups[0].rate_priority == 7
            and [(r.name, r.count, r.is_global) for r in s.groups[0].resources] == [("R", 5, True)]
            and (s.groups[1].count, s.groups[1].cpus, s.groups[1].resources) == (1, [], [])
        ),
    ),
    "response_cache": (True, lambda s: s.response_cache),
    "warm_up": (
        (WarmUp({"x": ROW}, "w", 4, 3),),
        lambda s: (
            [(w.name, w.rows, w.count) for w in s.warm_up] == [("w", 4, 3)]
            and [(i.name, i.datatype, list(i.shape), i.fill, i.data) for i in s.warm_up[0].inputs]
            == [("x", "FP32", [2], "data", b"12345678")]
        ),
    ),
}


def policy(queue: _core.QueuePolicy) -> tuple[int, int, str, bool]:
    return (queue.max_requests, queue.timeout_us, queue.on_timeout, queue.request_may_lower)


def test_the_table_of_knobs_is_complete() -> None:
    assert set(KNOBS) == {field.name for field in fields(Scheduling)}


@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_arrives(knob: str) -> None:
    value, arrived = KNOBS[knob]
    assert list(faults(Scheduling(**{knob: value}), 8)) == []
    assert arrived(spec_of(Scheduling(**{knob: value})))
    assert not arrived(spec_of(Scheduling()))


def test_defaults_are_those_of_the_engine() -> None:
    ours, plain = spec_of(Scheduling()), _core.LoadSpec("m", 1, backend="identity", max_batch_rows=8)
    for name in ("target_p99_us", "max_queue_delay_us", "max_queue_requests", "preferred_rows", "groups"):
        assert getattr(ours, name) == getattr(plain, name)
    assert policy(ours.queue.default_policy) == policy(_core.QueuePolicy()) == (0, 0, "reject", True)


@pytest.mark.parametrize(("rows", "batch_size", "want"), [(0, 1, 0), (8, 0, 1), (-1, 3, 3)])
def test_rows_of_a_warm_up(rows: int, batch_size: int, want: int) -> None:
    sample = WarmUp({"x": ROW}, batch_size=batch_size)
    assert spec_of(Scheduling(warm_up=(sample,)), rows).warm_up[0].rows == want


@pytest.mark.parametrize(
    ("queue", "priorities", "limit"),
    [
        (Queue(7), Priorities(), 7),
        (Queue(7), Priorities(1, 1, {1: Queue(3)}), 3),
        (Queue(7), Priorities(3, 1, {1: Queue(3)}), 17),
        (Queue(0), Priorities(2, 1, {1: Queue(3)}), 0),  # level 2 has none: the engine's default holds
        (Queue(MAX_REQUESTS), Priorities(2, 1), MAX_REQUESTS),
    ],
)
def test_the_limit_of_the_whole_queue(queue: Queue, priorities: Priorities, limit: int) -> None:
    assert Scheduling(queue=queue, priorities=priorities).max_queue_requests == limit


def queue_of(**knobs: Any) -> Scheduling:
    return Scheduling(queue=Queue(**knobs))


def group_of(**knobs: Any) -> Scheduling:
    return Scheduling(instances=(Instances(**knobs),))


# (name of the limit, how to set it, smallest value that is served, largest)
LIMITS: list[tuple[str, Any, int, int]] = [
    ("target_p99_ms", lambda n: Scheduling(target_p99_ms=n), 0, MAX_DELAY_US // 1000),
    ("max_queue_delay_us", lambda n: Scheduling(max_queue_delay_us=n), 0, MAX_DELAY_US),
    ("preferred_batch_sizes[0]", lambda n: Scheduling(preferred_batch_sizes=(n,)), 1, 8),
    ("allowed_batch_sizes[0]", lambda n: Scheduling(allowed_batch_sizes=(n,)), 8, 8),
    ("max_request_rows", lambda n: Scheduling(max_request_rows=n), 8, MAX_ROWS),
    ("queue.max_requests", lambda n: queue_of(max_requests=n), 0, MAX_REQUESTS),
    ("queue.timeout_ms", lambda n: queue_of(timeout_ms=n), 0, MAX_TIMEOUT_MS),
    ("priorities.levels", lambda n: Scheduling(priorities=Priorities(n)), 0, MAX_PRIORITY_LEVELS),
    ("priorities.default", lambda n: Scheduling(priorities=Priorities(3, n)), 0, 3),
    ("priorities.queues", lambda n: Scheduling(priorities=Priorities(3, 1, {n: Queue()})), 1, 3),
    ("instances[0].count", lambda n: group_of(count=n), 1, MAX_INSTANCES),
    ("instances[0].cpus", lambda n: group_of(cpus=(n,)), 0, 1023),
    (
        "instances[0].resources[0].count",
        lambda n: group_of(resources=(Resource("R", n),)),
        1,
        MAX_RESOURCE_COUNT,
    ),
    ("instances[0].rate_priority", lambda n: group_of(rate_priority=n), 0, (1 << 32) - 1),
    ("warm_up[0].batch_size", lambda n: Scheduling(warm_up=(WarmUp({"x": ROW}, "", n),)), 0, 8),
    ("warm_up[0].count", lambda n: Scheduling(warm_up=(WarmUp({"x": ROW}, "", 1, n),)), 1, MAX_WARM_UP_RUNS),
]


@pytest.mark.parametrize(("name", "make", "low", "high"), LIMITS, ids=[limit[0] for limit in LIMITS])
def test_limits_at_their_edges(name: str, make: Any, low: int, high: int) -> None:
    for value in (low, low + 1 if low < high else low, high):
        assert list(faults(make(value), 8)) == []
    for value in (low - 1, high + 1):
        if name == "max_request_rows" and value == 0:
            continue
        (fault,) = faults(make(value), 8)
        assert fault.worded().startswith(name)
        assert str(value) in fault.worded()


def test_numbers_that_are_none() -> None:
    for value in (float("nan"), float("inf")):
        assert len(list(faults(Scheduling(target_p99_ms=value), 8))) == 1
        assert len(list(faults(queue_of(timeout_ms=value), 8))) == 1


def test_order_and_delay_do_not_go_together() -> None:
    wanted = Scheduling(preserve_order=True, priorities=Priorities(2, 1, {1: Queue(0, 5, "delay")}))
    assert [fault.path for fault in faults(wanted, 8)] == [
        ("priorities", "levels"),
        ("priorities", "queues", 1, "on_timeout"),
    ]


@pytest.mark.parametrize(("text", "cpus"), [("0", (0,)), ("0-3,8", (0, 1, 2, 3, 8)), ("5, 1-2", (1, 2, 5))])
def test_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpus(text) == cpus
    assert parse_cpus(cpus_text(cpus)) == cpus


def test_embedding_takes_them_all() -> None:
    with Engine(rate_limit=RateLimit({"R": 2})) as engine:
        engine.load(
            "m",
            backend="identity",
            inputs=[Tensor("x", "FP32", (-1, 2))],
            outputs=[Tensor("y", "FP32", (-1, 2))],
            max_batch_rows=8,
            target_p99_ms=50,
            preferred_batch_sizes=[4],
            allowed_batch_sizes=[1, 8],
            max_request_rows=16,
            queue=Queue(max_requests=5, timeout_ms=100),
            priorities=Priorities(levels=2, default=1, queues={2: Queue(max_requests=3)}),
            instances=[Instances(2, resources=(Resource("R"),)), Instances()],
            response_cache=True,
            warm_up=[WarmUp({"x": WarmUpInput("FP32", (2,), "random")}, batch_size=4, count=2)],
        )
        assert engine.model("m").instances == 3
        assert engine.infer("m", {"x": np.ones((3, 2), np.float32)})["y"].shape == (3, 2)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"target_p99_ms": -1.0}, "target_p99_ms: got -1, want 0"),
        ({"priorities": Priorities(2, 3)}, "priorities.default: got 3, want 1 to 2"),
        ({"instances": [Instances(0)]}, "instances[0].count: got 0, want 1 to 1024"),
        ({"max_queue_requests": 1, "queue": Queue()}, "max_queue_requests is given beside queue"),
        ({"max_batch_rows": 4, "allowed_batch_sizes": [8]}, "want max_batch_size, which is 4"),
    ],
)
def test_embedding_refuses(knobs: dict[str, Any], message: str) -> None:
    with Engine() as engine, pytest.raises(InvalidArgument) as raised:
        engine.load("m", backend="identity", **knobs)
    assert message in str(raised.value)
