"""The course of a benchmark: levels one after the other, or the search for the highest rate that keeps a promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fastserve.bench.figures import Level, ServerFigures, level_of, server_figures
from fastserve.bench.fleet import Fleet
from fastserve.bench.plan import Step, Target
from fastserve.bench.schedule import Arrival
from fastserve.bench.search import Search
from fastserve.client import Client, ModelStatistics
from fastserve.errors import FastserveError

Mode = Literal["closed", "open"]

GRPC_CONNECTIONS = 4  # streams share them; a server with several I/O threads has something for each
OPEN_HTTP_SECONDS = 0.1  # of answers that an open loop has connections for
MAX_OPEN_HTTP_CONNECTIONS = 256
STATISTICS_S = 5.0
CALIBRATION_IN_FLIGHT = 32
CALIBRATION_NS = 1_000_000_000


@dataclass(frozen=True)
class Options:
    """`connections` 0: as many as `connections_for` says. `max_requests` 0: only time bounds a level."""

    mode: Mode
    levels: Sequence[float]
    duration_s: float = 5.0
    warmup_s: float = 1.0
    max_requests: int = 0
    arrival: Arrival = "poisson"
    connections: int = 0
    seed: int = 0
    target_p99_ms: float = 0.0  # 0: no search
    max_error_share: float = 0.0


class Audience(Protocol):
    """Who watches."""

    def progress(self, mode: Mode, level: float, share: float, answered: int, errors: int) -> None:
        """`share`: of the level's time, 0 to 1."""

    def measured(self, level: Level) -> None: ...


def connections_for(protocol: str, mode: Mode, level: float, processes: int) -> int:
    """HTTP/1.1 carries one request a connection; gRPC many."""
    if protocol == "grpc":
        wanted = max(GRPC_CONNECTIONS, processes)
        return min(wanted, int(level)) if mode == "closed" else wanted
    if mode == "closed":
        return int(level)
    return min(MAX_OPEN_HTTP_CONNECTIONS, max(8, math.ceil(level * OPEN_HTTP_SECONDS)))


class Bench:
    """One target. `client` asks the server for its statistics; None: nobody does."""

    def __init__(
        self,
        fleet: Fleet,
        target: Target,
        options: Options,
        audience: Audience,
        client: Client | None,
        model: str,
    ) -> None:
        self._fleet, self._target, self._options = fleet, target, options
        self._audience, self._client, self._model = audience, client, model

    def levels(self) -> list[Level]:
        """Measures each. Raises Unavailable when the server cannot be reached."""
        return [self.measure(self._options.mode, level) for level in self._options.levels]

    def search(self) -> tuple[Search, list[Level]]:
        """The highest rate that keeps options.target_p99_ms: every trial, and where it ended."""
        first = self._options.levels[0] if self._options.levels else self._half_of_what_it_can()
        search = Search(first)
        measured = []
        while (rate := search.next_rate()) is not None:
            level = self.measure("open", rate)
            measured.append(level)
            search.tell(level.keeps(self._options.target_p99_ms, self._options.max_error_share))
        return search, measured

    def _half_of_what_it_can(self) -> float:
        tally = self._fleet.run(self._step("closed", CALIBRATION_IN_FLIGHT, 0, CALIBRATION_NS), _nobody)
        return max(1.0, round(tally.ok_in_window / (tally.window_ns / 1e9) / 2))

    def measure(self, mode: Mode, level: float) -> Level:
        options = self._options
        warmup_ns, duration_ns = int(options.warmup_s * 1e9), int(options.duration_s * 1e9)
        before: list[ModelStatistics] = []
        total_s = options.warmup_s + options.duration_s

        def watch(elapsed_s: float, answered: int, errors: int) -> None:
            share = min(1.0, max(0.0, elapsed_s / total_s))
            self._audience.progress(mode, level, share, answered, errors)

        step = self._step(mode, level, warmup_ns, duration_ns)
        tally = self._fleet.run(step, watch, {warmup_ns: lambda: before.extend(self._statistics())})
        server = self._server_figures(before)
        found = level_of(mode, level, tally, server)
        self._audience.measured(found)
        return found

    def _server_figures(self, before: list[ModelStatistics]) -> ServerFigures | None:
        return server_figures(before, self._statistics()) if before else None

    def _statistics(self) -> list[ModelStatistics]:
        """None of them from a server that has none."""
        if self._client is None:
            return []
        try:
            return self._client.statistics(self._model, timeout=STATISTICS_S)
        except FastserveError:
            self._client = None
            return []

    def _step(self, mode: Mode, level: float, warmup_ns: int, duration_ns: int) -> Step:
        options, processes = self._options, len(self._fleet)
        wanted = options.connections or connections_for(self._target.address.protocol, mode, level, processes)
        return Step(
            mode,
            level,
            wanted,
            0,
            warmup_ns,
            duration_ns,
            options.max_requests,
            options.arrival,
            options.seed,
        )


def _nobody(*_: Any) -> None:
    pass
