"""Every knob, as plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fastserve.scheduling.limits import MAX_REQUESTS

OnTimeout = Literal["reject", "delay"]
Fill = Literal["zero", "random", "data"]


@dataclass(frozen=True)
class Queue:
    """How long and how many requests may wait: of the model, or of one priority level."""

    max_requests: int = 0  # 0: only the model's limit (the engine's default, 1024)
    timeout_ms: float = 0.0  # 0: none
    # reject: UNAVAILABLE when the time is over; delay: served after everything that is in time.
    on_timeout: OnTimeout = "reject"
    request_may_lower: bool = True  # a request's own `timeout` counts where it is shorter


@dataclass(frozen=True)
class Priorities:
    levels: int = 0  # 1 is served first; 0: not said, requests may use 1 to 16
    default: int = 0  # of a request that names none, or one beyond the levels; 0: the middle one
    queues: Mapping[int, Queue] = field(default_factory=dict)  # level -> its own; others have the model's


@dataclass(frozen=True)
class Resource:
    """What an instance holds while it runs a batch (the rate limiter, --rate-limit)."""

    name: str
    count: int = 1
    is_global: bool = False  # counted once for the process, not per device


@dataclass(frozen=True)
class Instances:
    """A group of equal instances."""

    count: int = 1
    name: str = ""
    cpus: tuple[int, ...] = ()  # their threads stay there; empty: anywhere
    resources: tuple[Resource, ...] = ()
    rate_priority: int = 0  # 2 gets half the turns of 1; 0 counts as 1
    gpu: str = ""  # of backends on a GPU: its number or UUID ("GPU-...", "MIG-..."); "": the backend decides


@dataclass(frozen=True)
class RateLimit:
    """The rate limiter is on (--rate-limit execution_count)."""

    # How many there are of a resource; of one that is not named, as many as the neediest instance wants.
    resources: Mapping[str, int] = field(default_factory=dict)

    def core_resources(self) -> list[tuple[str, int, int]]:
        return [(name, count, -1) for name, count in self.resources.items()]


@dataclass(frozen=True)
class WarmUpInput:
    """One row of one input. `data`: its wire bytes (BYTES with length prefixes), for fill "data"."""

    datatype: str
    dims: tuple[int, ...]  # without the batch dimension when the model batches
    fill: Fill = "zero"
    data: bytes = b""


@dataclass(frozen=True)
class WarmUp:
    """A request that every instance runs before the model is ready."""

    inputs: Mapping[str, WarmUpInput]
    name: str = ""
    batch_size: int = 1
    count: int = 1


@dataclass(frozen=True)
class Scheduling:
    """Every knob of one version. Defaults: nobody waits for company, and the engine chooses the rest."""

    target_p99_ms: float | None = None  # 0: none; None: the server's default (--target-p99-ms)
    max_queue_delay_us: int = 0  # how long a request may wait for company
    preferred_batch_sizes: tuple[int, ...] = ()  # reaching one ends that wait
    allowed_batch_sizes: tuple[
        int, ...
    ] = ()  # only these are prepared and run; the last is the largest batch
    max_request_rows: int = 0  # a larger request than a batch is split; 0: it is refused
    preserve_order: bool = False  # answers leave in the order of the requests
    queue: Queue = Queue()
    priorities: Priorities = Priorities()
    instances: tuple[Instances, ...] = ()  # empty: the backend decides
    response_cache: bool = False
    warm_up: tuple[WarmUp, ...] = ()

    @property
    def max_queue_requests(self) -> int:
        """Of the model, all levels together; 0: the engine's default."""
        if self.priorities.levels <= 1:
            return self.queue_of(1).max_requests
        own = [self.queue_of(level).max_requests for level in range(1, self.priorities.levels + 1)]
        return min(sum(own), MAX_REQUESTS) if all(own) else 0

    def queue_of(self, level: int) -> Queue:
        return self.priorities.queues.get(level, self.queue)
