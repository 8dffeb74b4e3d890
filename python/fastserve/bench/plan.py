"""What a run does, as data: made by the command, carried out by workers. Pickled to the worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fastserve.bench.histogram import Histogram
from fastserve.bench.schedule import Arrival
from fastserve.client.address import Address
from fastserve.client.settings import Tls


@dataclass(frozen=True)
class Target:
    """Where, and the requests as they go over the wire, sent in turn."""

    address: Address
    payloads: Sequence[bytes]
    timeout_s: float
    tls: Tls = field(default_factory=Tls)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Step:
    """One level, this worker's share of it. Times in ns of time.monotonic_ns, which all processes share."""

    mode: Literal["closed", "open"]
    level: float  # closed: requests in flight (this worker's); open: requests a second (of all workers)
    connections: int
    start_ns: int
    warmup_ns: int
    duration_ns: int
    max_requests: int = 0  # of this worker; 0: no such bound
    arrival: Arrival = "poisson"
    seed: int = 0
    share: int = 0
    shares: int = 1


@dataclass
class Tally:
    """What a step did. Latencies are of answered requests that were due in the window; an open loop's count from when
    the request was due, a closed loop's from when it was sent."""

    latencies: Histogram = field(default_factory=Histogram)
    lags: Histogram = field(default_factory=Histogram)  # open loop: from due, with a free place, to sent
    errors: dict[int, int] = field(default_factory=dict)  # gRPC code -> count
    messages: dict[int, str] = field(default_factory=dict)  # gRPC code -> the first words seen
    ok_in_window: int = 0  # answered inside the window: what throughput is made of
    due: int = 0  # requests that were due in the window
    unsent: int = 0  # of them, never sent: there was no free place; counted with the least latency they had
    halves: list[list[int]] = field(
        default_factory=lambda: [[0, 0], [0, 0]]
    )  # of the window: sum of ns, count
    window_ns: int = 0  # how long it was (a count bound ends it early)
    cpu_ns: int = 0  # of the process in the window
    busiest: float = 0.0  # share of a CPU that the busiest process used
    starved: float = 0.0  # share of the window in which a process was ready to run and had no CPU
    received_bytes: int = 0

    def merge(self, other: Tally) -> None:
        """With a worker that ran beside."""
        self.latencies.merge(other.latencies)
        self.lags.merge(other.lags)
        for code, count in other.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
            self.messages.setdefault(code, other.messages[code])
        self.ok_in_window += other.ok_in_window
        self.due += other.due
        self.unsent += other.unsent
        for mine, others in zip(self.halves, other.halves, strict=True):
            mine[0] += others[0]
            mine[1] += others[1]
        self.window_ns = max(self.window_ns, other.window_ns)
        self.cpu_ns += other.cpu_ns
        self.busiest = max(self.busiest, other.busiest)
        self.starved = max(self.starved, other.starved)
        self.received_bytes += other.received_bytes
