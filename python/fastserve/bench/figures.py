"""From what was counted to what is shown. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastserve.bench.plan import Tally
from fastserve.client.result import ModelStatistics
from fastserve.errors import CODE_NAMES

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

BUSY = 0.9  # of a CPU: the process could hardly have done more
STARVED = 0.2  # of the time without a CPU that it wanted
LATE_NS = 1_000_000  # the schedule ran late by so much, in one request of a hundred
SLOPE = 0.02  # of the window: the latency grew while it lasted
KEPT_SHARE = 0.95  # of what was due has to be answered inside the window


@dataclass(frozen=True)
class ServerFigures:
    """Means over the window, from the server's statistics. µs per request; rows per execution."""

    requests: int
    queue_us: float
    compute_us: float  # input + infer + output
    rows_per_batch: float


@dataclass(frozen=True)
class Level:
    """One line of the table."""

    mode: Literal["closed", "open"]
    level: float  # requests in flight, or requests a second
    rate: float  # answered requests a second, inside the window
    tally: Tally = field(repr=False)
    server: ServerFigures | None = None

    @property
    def error_count(self) -> int:
        return sum(self.tally.errors.values())

    @property
    def error_share(self) -> float:
        asked = self.tally.due
        return self.error_count / asked if asked else 0.0

    def percentile_ms(self, percent: float) -> float:
        return self.tally.latencies.percentile_ns(percent) / 1e6

    @property
    def client_problem(self) -> str:
        """Why the figures may be the client's rather than the server's; empty when nothing says so."""
        tally = self.tally
        if tally.busiest >= BUSY:
            return (
                f"a load process used {tally.busiest:.0%} of a CPU: try more --processes, or another machine"
            )
        if tally.starved >= STARVED:
            return f"a load process waited {tally.starved:.0%} of the time for a CPU that others used"
        late_ns = tally.lags.percentile_ns(99)
        if late_ns > max(LATE_NS, tally.latencies.percentile_ns(50) // 10):
            return (
                f"requests left up to {late_ns / 1e6:.1f} ms late (p99): the client's CPU was busy elsewhere"
            )
        return ""

    @property
    def overload(self) -> str:
        """Open loop: the server did not keep up."""
        if self.mode == "closed":
            return ""
        if self.tally.unsent:
            return (
                f"{self.tally.unsent} of {self.tally.due} requests were never sent: no connection came free"
            )
        if self._left_over > self._left_over_allowed(0.0) and self._slope > SLOPE:
            return f"{self._left_over:,} requests were still unanswered at the end: the backlog grew"
        return ""

    @property
    def _slope(self) -> float:
        """How much longer the second half of the window took to answer, as a share of the window. A server that can do
        a share s of what is offered falls behind by 1 - s in every second, so that this is (1 - s) / 2."""
        means = [total / count if count else 0.0 for total, count in self.tally.halves]
        return (means[1] - means[0]) / self.tally.window_ns

    @property
    def _left_over(self) -> int:
        """Due in the window and not answered at its end."""
        return self.tally.due - self.tally.ok_in_window - self.error_count

    def _left_over_allowed(self, latency_ms: float) -> float:
        """What is in flight at any moment when the latency is that (Little's law), and some noise."""
        return self.level * latency_ms / 1e3 + (1 - KEPT_SHARE) * self.tally.due + 3

    def keeps(self, target_p99_ms: float, max_error_share: float) -> bool:
        """The promise of --target-p99."""
        if not self.tally.latencies.count or self.tally.unsent or self.error_share > max_error_share:
            return False
        return self.percentile_ms(99) <= target_p99_ms and self._left_over <= self._left_over_allowed(
            target_p99_ms
        )


def level_of(
    mode: Literal["closed", "open"], level: float, tally: Tally, server: ServerFigures | None
) -> Level:
    return Level(mode, level, tally.ok_in_window / (tally.window_ns / 1e9), tally, server)


def server_figures(
    before: Sequence[ModelStatistics], after: Sequence[ModelStatistics]
) -> ServerFigures | None:
    """None where nothing was counted in between. Versions that are there afterwards only count from zero."""
    old = {(entry.name, entry.version): entry for entry in before}
    requests = queue_ns = compute_ns = rows = executions = 0
    for entry in after:
        base = old.get((entry.name, entry.version)) or ModelStatistics(entry.name, entry.version)
        requests += entry.total("queue").count - base.total("queue").count
        queue_ns += entry.total("queue").ns - base.total("queue").ns
        for stage in ("compute_input", "compute_infer", "compute_output"):
            compute_ns += entry.total(stage).ns - base.total(stage).ns
        rows += entry.inference_count - base.inference_count
        executions += entry.execution_count - base.execution_count
    if requests <= 0:
        return None
    mean_rows = rows / executions if executions > 0 else 0.0
    return ServerFigures(requests, queue_ns / requests / 1e3, compute_ns / requests / 1e3, mean_rows)


def level_dict(level: Level) -> dict[str, Any]:
    """For the JSON file: ms, requests a second, shares from 0 to 1."""
    tally = level.tally
    latency = {f"p{percent:g}": level.percentile_ms(percent) for percent in PERCENTILES}
    latency |= {
        "min": tally.latencies.min_ns / 1e6,
        "max": tally.latencies.max_ns / 1e6,
        "mean": tally.latencies.mean_ns / 1e6,
    }
    errors = [
        {
            "code": CODE_NAMES.get(code, str(code)),
            "count": count,
            "first_message": tally.messages.get(code, ""),
        }
        for code, count in sorted(tally.errors.items())
    ]
    server = level.server
    return {
        "mode": level.mode,
        "level": level.level,
        "requests_per_second": level.rate,
        "window_s": tally.window_ns / 1e9,
        "requests": {
            "due": tally.due,
            "answered": tally.latencies.count - tally.unsent,
            "unsent": tally.unsent,
        },
        "latency_ms": latency,
        "latency_histogram_ns": tally.latencies.to_dict(),
        "errors": errors,
        "server": None
        if server is None
        else {
            "requests": server.requests,
            "queue_us": server.queue_us,
            "compute_us": server.compute_us,
            "rows_per_batch": server.rows_per_batch,
        },
        "client": {
            "cpu_s": tally.cpu_ns / 1e9,
            "busiest_process_cpu_share": tally.busiest,
            "most_starved_process_share": tally.starved,
            "schedule_lag_p99_ms": tally.lags.percentile_ns(99) / 1e6,
            "problem": level.client_problem,
        },
        "overload": level.overload,
    }
