"""Scheduling into Triton's ModelConfig: what clients get to see of a model.yaml, of TensorFlow Serving's parameters, of flags."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from fastserve import protos
from fastserve.lifecycle.host_policy import INLINE
from fastserve.lifecycle.triton_gpu import GPUS, gpu_words
from fastserve.lifecycle.triton_scheduling import ALLOWED, DELAY, REQUEST_ROWS, TARGET
from fastserve.scheduling import Instances, Queue, Scheduling, cpus_text


def write_scheduling(wanted: Scheduling, message: Any) -> None:
    """Puts what is not default into the message; what stands there and says the same stays as it is. The reverse of
    reading but for warm-up, whose files a message names and Scheduling holds."""
    _write_parameters(wanted, message)
    _write_batching(wanted, message)
    _write_groups(wanted.instances, message)
    if wanted.response_cache:
        message.response_cache.enable = True


def _write_parameters(wanted: Scheduling, message: Any) -> None:
    texts = {
        TARGET: f"{wanted.target_p99_ms:g}" if wanted.target_p99_ms is not None else "",
        ALLOWED: ",".join(map(str, wanted.allowed_batch_sizes)),
        REQUEST_ROWS: str(wanted.max_request_rows or ""),
    }
    for name, text in texts.items():
        if text and name not in message.parameters:
            message.parameters[name].string_value = text


def _write_batching(wanted: Scheduling, message: Any) -> None:
    plain = Scheduling()
    knobs = ("max_queue_delay_us", "preferred_batch_sizes", "preserve_order", "queue", "priorities")
    if all(getattr(wanted, knob) == getattr(plain, knob) for knob in knobs):
        return
    batching = message.dynamic_batching
    if wanted.max_queue_delay_us:
        batching.max_queue_delay_microseconds = wanted.max_queue_delay_us
    if sorted(batching.preferred_batch_size) != sorted(wanted.preferred_batch_sizes):
        batching.preferred_batch_size[:] = wanted.preferred_batch_sizes
    if wanted.preserve_order:
        batching.preserve_ordering = True
    if wanted.queue != Queue():
        _write_queue(wanted.queue, batching.default_queue_policy)
    priorities = wanted.priorities
    if priorities.levels:
        batching.priority_levels = priorities.levels
        batching.default_priority_level = priorities.default or math.ceil(priorities.levels / 2)
    for level, queue in priorities.queues.items():
        _write_queue(queue, batching.priority_queue_policy[level])


def _write_queue(queue: Queue, policy: Any) -> None:
    policy.SetInParent()
    policy.timeout_action = DELAY if queue.on_timeout == "delay" else 0
    policy.default_timeout_microseconds = round(queue.timeout_ms * 1000)
    policy.allow_timeout_override = queue.request_may_lower
    policy.max_queue_size = queue.max_requests


def _write_groups(groups: tuple[Instances, ...], message: Any) -> None:
    kinds = protos.enum_type("inference.ModelInstanceGroup.Kind").values_by_name
    if groups and not message.instance_group:
        for group in groups:
            kind = kinds["KIND_GPU" if group.gpu else "KIND_CPU"].number
            gpus = [int(group.gpu)] if group.gpu.isdecimal() else []
            message.instance_group.add(name=group.name, count=group.count, kind=kind, gpus=gpus)
    for group, written in zip(_first_of_each(groups, message), message.instance_group, strict=False):
        if group.cpus and not written.host_policy:
            written.host_policy = INLINE + cpus_text(group.cpus)
        if group.rate_priority:
            written.rate_limiter.priority = group.rate_priority
        if group.resources and not written.rate_limiter.resources:
            for resource in group.resources:
                added = written.rate_limiter.resources.add(name=resource.name, count=resource.count)
                setattr(added, "global", resource.is_global)


def _first_of_each(groups: tuple[Instances, ...], message: Any) -> Iterator[Instances]:
    """A group of the message stands for one on each of its GPUs."""
    named = len(gpu_words(message.parameters[GPUS].string_value)) if GPUS in message.parameters else 0
    at = 0
    for written in message.instance_group:
        yield from groups[at : at + 1]
        at += len(written.gpus) or named or 1
