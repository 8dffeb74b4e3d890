"""Scheduling -> what the engine takes."""

from __future__ import annotations

from typing import Any

from fastserve import _core
from fastserve.scheduling.knobs import Instances, Priorities, Queue, Scheduling, WarmUp


def core_arguments(wanted: Scheduling, max_batch_rows: int) -> dict[str, Any]:
    """Keyword arguments of _core.LoadSpec, as far as they are not its defaults. `max_batch_rows` as in `faults`."""
    given = {
        "target_p99_us": round((wanted.target_p99_ms or 0) * 1000),
        "max_queue_delay_us": wanted.max_queue_delay_us,
        "max_queue_requests": wanted.max_queue_requests,
        "preferred_rows": sorted(set(wanted.preferred_batch_sizes)),
        "allowed_rows": wanted.allowed_batch_sizes,
        "max_request_rows": wanted.max_request_rows,
        "queue": _limits(wanted),
        "groups": [_group(group) for group in wanted.instances],
        "response_cache": wanted.response_cache,
        "warm_up": [_warm_up(sample, max_batch_rows) for sample in wanted.warm_up],
    }
    return {name: value for name, value in given.items() if value}


def _limits(wanted: Scheduling) -> _core.QueueLimits | None:
    if (wanted.queue, wanted.priorities, wanted.preserve_order) == (Queue(), Priorities(), False):
        return None
    return _core.QueueLimits(
        priority_levels=wanted.priorities.levels,
        default_priority=wanted.priorities.default,
        default_policy=_queue(wanted.queue),
        by_priority={level: _queue(queue) for level, queue in wanted.priorities.queues.items()},
        preserve_ordering=wanted.preserve_order,
    )


def _queue(queue: Queue) -> _core.QueuePolicy:
    return _core.QueuePolicy(
        on_timeout=queue.on_timeout,
        timeout_us=round(queue.timeout_ms * 1000),
        request_may_lower=queue.request_may_lower,
        max_requests=queue.max_requests,
    )


def _group(group: Instances) -> _core.InstanceGroup:
    return _core.InstanceGroup(
        name=group.name,
        count=group.count,
        cpus=group.cpus,
        resources=[
            _core.ResourceNeed(resource.name, count=resource.count, is_global=resource.is_global)
            for resource in group.resources
        ],
        rate_priority=group.rate_priority,
        gpu=group.gpu,
    )


def _warm_up(sample: WarmUp, max_batch_rows: int) -> _core.WarmUpSample:
    return _core.WarmUpSample(
        name=sample.name,
        rows=max(sample.batch_size, 1) if max_batch_rows else 0,
        count=sample.count,
        inputs=[
            _core.WarmUpInput(name, i.datatype, i.dims, fill=i.fill, data=i.data)
            for name, i in sample.inputs.items()
        ],
    )
