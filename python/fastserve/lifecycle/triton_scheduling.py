"""Scheduling as Triton's ModelConfig spells it: read from a message, and where each knob stands (written: triton_write.py).

Knobs that Triton's schema lacks are entries of `parameters`; they do not reach the backend:

    target_p99_ms "25"    allowed_batch_sizes "1,4,8"    max_request_batch_size "256"    gpus "GPU-5f...,MIG-..."
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from fastserve import protos
from fastserve.lifecycle.host_policy import CPU_POLICY, INLINE, inline_cpus, unknown_policy
from fastserve.lifecycle.pbtxt import Positions, TextError
from fastserve.lifecycle.tensor_types import datatype_of
from fastserve.lifecycle.triton_gpu import GPUS, gpu_words
from fastserve.scheduling import (
    Instances,
    OnTimeout,
    Priorities,
    Queue,
    Resource,
    Scheduling,
    WarmUp,
    WarmUpInput,
    faults,
)

TARGET = "target_p99_ms"
ALLOWED = "allowed_batch_sizes"
REQUEST_ROWS = "max_request_batch_size"
PARAMETERS = frozenset({TARGET, ALLOWED, REQUEST_ROWS, GPUS})  # ours: not the backend's

# Knob of Scheduling -> field of dynamic_batching.
_BATCHING = {
    "max_queue_delay_us": "max_queue_delay_microseconds",
    "preferred_batch_sizes": "preferred_batch_size",
    "preserve_order": "preserve_ordering",
    "levels": "priority_levels",
    "default": "default_priority_level",
}
_QUEUE = {
    "max_requests": "max_queue_size",
    "timeout_ms": "default_timeout_microseconds",
    "on_timeout": "timeout_action",
    "request_may_lower": "allow_timeout_override",
}
_PARAMETER = {"target_p99_ms": TARGET, "allowed_batch_sizes": ALLOWED, "max_request_rows": REQUEST_ROWS}
DELAY = 1  # ModelQueuePolicy.TimeoutAction
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,6})?")


class TritonScheduling:
    """One message with its positions. `policies`: host policy -> CPUs (--host-policy)."""

    def __init__(
        self, message: Any, positions: Positions, policies: Mapping[str, tuple[int, ...]] | None = None
    ) -> None:
        self.message = message
        self.positions = positions
        self.policies = policies or {}
        self.notes: list[str] = []
        self._errors: list[TextError] = []
        self.wanted = self._read()

    def errors(self, max_batch_rows: int) -> Iterator[TextError]:
        """What cannot be read, and what is impossible for a model that batches so (`scheduling.faults`)."""
        yield from self._errors
        batching = self.message.dynamic_batching
        if batching.priority_levels and not batching.default_priority_level:
            line = self.positions.line("dynamic_batching", 0, "priority_levels")
            want = f"want 1 to {batching.priority_levels}"
            yield TextError(line, f"dynamic_batching.default_priority_level: got 0, {want}")
        for path, text in faults(self.wanted, max_batch_rows):
            name, line = self._place(path)
            yield TextError(line, f"{name}: {text}")

    # --- reading

    def _read(self) -> Scheduling:
        message, batching = self.message, self.message.dynamic_batching
        queue = Queue()
        if batching.HasField("default_queue_policy"):
            queue = _queue(batching.default_queue_policy)
        return Scheduling(
            target_p99_ms=self._target(),
            max_queue_delay_us=batching.max_queue_delay_microseconds,
            preferred_batch_sizes=tuple(batching.preferred_batch_size),
            allowed_batch_sizes=self._allowed(),
            max_request_rows=self._request_rows(),
            preserve_order=batching.preserve_ordering,
            queue=queue,
            priorities=self._priorities(batching),
            instances=tuple(on for group in self._all_groups() for on in self._groups(group)),
            response_cache=message.response_cache.enable,
            warm_up=tuple(_warm_up(sample) for sample in message.model_warmup),
        )

    def _priorities(self, batching: Any) -> Priorities:
        if batching.priority_levels:
            queues = {
                level: _queue(batching.priority_queue_policy[level])
                for level in sorted(batching.priority_queue_policy)
            }
            return Priorities(batching.priority_levels, batching.default_priority_level, queues)
        for name in ("default_priority_level", "priority_queue_policy"):
            if getattr(batching, name):
                self.notes.append(f"dynamic_batching.{name} is without effect: priority_levels is not set")
        return Priorities()

    def _all_groups(self) -> list[Any]:
        """Where GPUs are named by UUID, there is one group at least."""
        groups = list(self.message.instance_group)
        if not groups and self._parameter(GPUS):
            groups = [protos.message_class("inference.ModelInstanceGroup")()]
        return groups

    def _groups(self, group: Any) -> list[Instances]:
        """`count` instances on each of its GPUs, as Triton has it."""
        one = self._group(group)
        gpus = [str(gpu) for gpu in group.gpus] or gpu_words(self._parameter(GPUS))
        return [replace(one, gpu=gpu) for gpu in gpus] or [one]

    def _group(self, group: Any) -> Instances:
        resources = tuple(
            Resource(r.name, r.count, getattr(r, "global")) for r in group.rate_limiter.resources
        )
        return Instances(
            count=group.count or 1,
            name=group.name,
            cpus=self._cpus(group.host_policy),
            resources=resources,
            rate_priority=group.rate_limiter.priority,
        )

    def _cpus(self, name: str) -> tuple[int, ...]:
        """Triton's rule: a group that names no policy has the one named after its kind."""
        if name.startswith(INLINE):
            try:
                return inline_cpus(name)
            except ValueError as error:
                self._errors.append(
                    TextError(self.positions.line("instance_group"), f"instance_group.host_policy: {error}")
                )
                return ()
        if name and name not in self.policies:
            self.notes.append(unknown_policy("instance_group.host_policy", name))
        return self.policies.get(name or CPU_POLICY, ())

    # --- our parameters

    def _parameter(self, name: str) -> str:
        return self.message.parameters[name].string_value.strip() if name in self.message.parameters else ""

    def _wrong(self, name: str, want: str) -> None:
        got = self.message.parameters[name].string_value[:60]
        line = self.positions.line_of_key("parameters", name)
        self._errors.append(TextError(line, f"parameters: {name}: got '{got}', want {want}"))

    def _target(self) -> float | None:
        if TARGET not in self.message.parameters:
            return None
        text = self._parameter(TARGET)
        if not _NUMBER.fullmatch(text):
            self._wrong(TARGET, "a number of milliseconds, 0 for none")
            return None
        return float(text)

    def _allowed(self) -> tuple[int, ...]:
        text = self._parameter(ALLOWED)
        if ALLOWED not in self.message.parameters:
            return ()
        parts = [part.strip() for part in text.split(",")]
        if not all(re.fullmatch(r"\d{1,10}", part) for part in parts):
            self._wrong(ALLOWED, "batch sizes such as 1,4,8")
            return ()
        return tuple(int(part) for part in parts)

    def _request_rows(self) -> int:
        if REQUEST_ROWS not in self.message.parameters:
            return 0
        text = self._parameter(REQUEST_ROWS)
        if not re.fullmatch(r"\d{1,10}", text):
            self._wrong(REQUEST_ROWS, "a number of rows")
            return 0
        return int(text)

    # --- where a knob stands

    def _place(self, path: tuple[str | int, ...]) -> tuple[str, int]:
        """Name in the words of the file, and line."""
        at = self.positions
        field: tuple[str | int, ...]
        match path:
            case ("target_p99_ms" | "allowed_batch_sizes" | "max_request_rows" as knob, *_):
                name = _PARAMETER[knob]
                return f"parameters: {name}", at.line_of_key("parameters", name)
            case ("queue", knob):
                field = ("dynamic_batching", 0, "default_queue_policy", 0, _QUEUE[str(knob)])
            case ("priorities", "queues", int(level), *rest):
                return self._queue_place(level, rest)
            case ("priorities", knob) | (("max_queue_delay_us" | "preserve_order") as knob,):
                field = ("dynamic_batching", 0, _BATCHING[str(knob)])
            case ("preferred_batch_sizes", *index):
                field = ("dynamic_batching", 0, "preferred_batch_size", *index)
            case ("instances", *rest):
                field = ("instance_group", *_group_field(rest))
            case ("warm_up", int(index), *rest):
                return self._warm_up_place(index, rest)
            case _:
                raise AssertionError(path)
        return ".".join(part for part in field if isinstance(part, str)), at.line(*field)

    def _queue_place(self, level: int, rest: list[str | int]) -> tuple[str, int]:
        entry = self.positions.map_entry(("dynamic_batching", 0, "priority_queue_policy"), str(level))
        name = f"dynamic_batching.priority_queue_policy[{level}]"
        if not rest:
            return name, self.positions.line(*entry, "key")
        field = _QUEUE[str(rest[0])]
        return f"{name}.{field}", self.positions.line(*entry, "value", 0, field)

    def _warm_up_place(self, index: int, rest: list[str | int]) -> tuple[str, int]:
        sample: tuple[str | int, ...] = ("model_warmup", index)
        match rest:
            case ["inputs", str(name), *field]:
                entry = self.positions.map_entry((*sample, "inputs"), name)
                inner = (*entry, "value", 0, *field) if field else (*entry, "key")
                return ".".join([f'model_warmup.inputs["{name}"]', *map(str, field)]), self.positions.line(
                    *inner
                )
            case [field]:
                return f"model_warmup.{field}", self.positions.line(*sample, field)
        return "model_warmup", self.positions.line(*sample)

    def error(self, path: tuple[str | int, ...], text: str) -> TextError:
        name, line = self._place(path)
        return TextError(line, f"{name}: {text}")


def _queue(policy: Any) -> Queue:
    action: OnTimeout = "delay" if policy.timeout_action == DELAY else "reject"
    return Queue(
        max_requests=policy.max_queue_size,
        timeout_ms=policy.default_timeout_microseconds / 1000,
        on_timeout=action,
        request_may_lower=policy.allow_timeout_override,
    )


def _warm_up(sample: Any) -> WarmUp:
    fills: dict[str, Literal["zero", "random", "data"]] = {"random_data": "random", "input_data_file": "data"}
    return WarmUp(
        name=sample.name,
        batch_size=sample.batch_size,
        count=sample.count or 1,
        inputs={
            name: WarmUpInput(
                datatype=datatype_of(sample.inputs[name].data_type),
                dims=tuple(sample.inputs[name].dims),
                fill=fills.get(sample.inputs[name].WhichOneof("input_data_type") or "", "zero"),
            )
            for name in sorted(sample.inputs)
        },
    )


def _group_field(rest: list[str | int]) -> tuple[str | int, ...]:
    """("count",) or ("resources", 0, "name") behind the index of a group."""
    match rest:
        case [int(index), "resources", *inner]:
            return (index, "rate_limiter", 0, "resources", *inner)
        case [int(index), "rate_priority"]:
            return (index, "rate_limiter", 0, "priority")
        case [int(index), "cpus"]:
            return (index, "host_policy")
    return tuple(rest)
