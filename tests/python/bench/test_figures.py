from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from fastserve import svg
from fastserve.bench import figures, picture, report
from fastserve.bench.plan import Tally
from fastserve.bench.run import connections_for
from fastserve.client import ModelStatistics, Total

MS = 1_000_000


def tally(latencies_ms: list[float], **fields: Any) -> Tally:
    made = Tally(window_ns=1_000_000_000, due=len(latencies_ms), ok_in_window=len(latencies_ms))
    made.latencies.add([int(ms * MS) for ms in latencies_ms])
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def open_level(rate: float, latencies_ms: list[float], **fields: Any) -> figures.Level:
    return figures.level_of("open", rate, tally(latencies_ms, **fields), None)


def test_rate_is_what_was_answered_inside_the_window() -> None:
    level = figures.level_of("closed", 4, tally([1.0] * 10, ok_in_window=8, window_ns=500_000_000), None)
    assert level.rate == 16


def test_tallies_of_workers_add_up() -> None:
    one = tally([1, 2], errors={14: 1}, messages={14: "a"}, cpu_ns=5, busiest=0.3, starved=0.1, unsent=1)
    one.merge(
        tally([3], errors={14: 2, 3: 1}, messages={14: "b", 3: "c"}, cpu_ns=6, busiest=0.5, starved=0.0)
    )
    assert (one.latencies.count, one.due, one.ok_in_window, one.unsent, one.cpu_ns) == (3, 3, 3, 1, 11)
    assert (one.errors, one.messages) == ({14: 3, 3: 1}, {14: "a", 3: "c"})
    assert (one.busiest, one.starved) == (0.5, 0.1)


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        (open_level(100, [5.0] * 99 + [11.0]), True),  # exactly one in a hundred above
        (open_level(100, [5.0] * 98 + [11.0] * 2), False),
        (open_level(100, [5.0] * 100, errors={14: 1}), False),
        (open_level(100, [5.0] * 100, unsent=1), False),
        (open_level(100, []), False),
        (open_level(100, [5.0] * 100, ok_in_window=91), True),  # one in flight, five of noise, three
        (open_level(100, [5.0] * 100, ok_in_window=90), False),
    ],
)
def test_keeping_a_promise_of_10_ms(level: figures.Level, kept: bool) -> None:
    assert level.keeps(10, 0.0) is kept


def test_errors_that_are_allowed() -> None:
    level = open_level(100, [1.0] * 99, errors={14: 1}, due=100)
    assert level.keeps(10, 0.01)
    assert not level.keeps(10, 0.009)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ""),
        ({"busiest": 0.89}, ""),
        ({"busiest": 0.9}, "used 90% of a CPU"),
        ({"starved": 0.19}, ""),
        ({"starved": 0.2}, "waited 20% of the time"),
    ],
)
def test_when_the_client_is_the_bottleneck(fields: dict[str, float], words: str) -> None:
    problem = open_level(10, [1.0] * 10, **fields).client_problem
    assert words in problem
    assert bool(problem) is bool(words)


@pytest.mark.parametrize(
    ("late_ms", "latency_ms", "late"), [(0.9, 1, False), (1.1, 1, True), (1.1, 20, False)]
)
def test_a_late_schedule(late_ms: float, latency_ms: float, late: bool) -> None:
    level = open_level(10, [latency_ms] * 100)
    level.tally.lags.add([int(late_ms * MS)] * 100)
    assert ("late (p99)" in level.client_problem) is late


def test_a_growing_backlog_is_said() -> None:
    def level(first_ms: float, second_ms: float, answered: int) -> figures.Level:
        halves = [[int(first_ms * MS) * 500, 500], [int(second_ms * MS) * 500, 500]]
        return open_level(1000, [1.0] * 1000, ok_in_window=answered, halves=halves)

    assert level(10, 10, 990).overload == ""
    assert level(300, 310, 700).overload == "", (
        "slow, but not slower and slower: 300 are in flight at any moment"
    )
    assert "400 requests were still unanswered" in level(100, 300, 600).overload
    assert level(100, 300, 950).overload == "", "a bad moment, and it caught up"
    assert "never sent" in open_level(100, [10.0] * 100, unsent=3).overload
    assert figures.level_of("closed", 1, tally([1.0], ok_in_window=0), None).overload == ""


def statistics(
    requests: int, queue_ns: int, rows: int, executions: int, version: str = "1"
) -> ModelStatistics:
    totals = {"queue": Total(requests, queue_ns)}
    totals |= {
        name: Total(requests, requests * 1000)
        for name in ("compute_input", "compute_infer", "compute_output")
    }
    return ModelStatistics("m", version, rows, executions, 0, totals)


def test_the_servers_figures_are_of_the_window() -> None:
    before, after = [statistics(100, 5_000_000, 100, 100)], [statistics(300, 9_000_000, 900, 200)]
    assert figures.server_figures(before, after) == figures.ServerFigures(200, 20.0, 3.0, 8.0)
    assert figures.server_figures(before, before) is None
    assert figures.server_figures([], after) == figures.ServerFigures(300, 30.0, 3.0, 4.5)
    reloaded = [*after, statistics(100, 2_000_000, 100, 100, version="2")]
    found = figures.server_figures(before, reloaded)
    assert found is not None
    assert (found.requests, found.queue_us) == (300, 20.0)


@pytest.mark.parametrize(
    ("protocol", "mode", "level", "processes", "wanted"),
    [
        ("grpc", "closed", 1, 1, 1),
        ("grpc", "closed", 64, 1, 4),
        ("grpc", "closed", 64, 8, 8),
        ("grpc", "open", 5000, 1, 4),
        ("http", "closed", 64, 1, 64),
        ("http", "open", 10, 1, 8),
        ("http", "open", 1000, 1, 100),
        ("http", "open", 99_999, 1, 256),
    ],
)
def test_connections(protocol: str, mode: Any, level: float, processes: int, wanted: int) -> None:
    assert connections_for(protocol, mode, level, processes) == wanted


LEVELS = [
    figures.level_of("closed", level, tally([level] * 1000), figures.ServerFigures(1, 2.0, 3.0, 4.0))
    for level in (1, 2, 4, 8)
]


def test_the_document() -> None:
    document = report.document(target={"url": "u"}, load={}, machine={"cpus": 2}, levels=LEVELS)
    assert json.loads(json.dumps(document)) == document
    assert document["schema"] == "fastserve.bench/1"
    assert document["best"] == {"level": 1, "requests_per_second": 1000}
    first = document["levels"][0]
    assert first["latency_ms"]["p99"] == pytest.approx(1.0, rel=0.01)
    assert first["latency_ms"]["max"] == 1.0
    assert first["requests"] == {"due": 1000, "answered": 1000, "unsent": 0}
    assert first["server"] == {"requests": 1, "queue_us": 2.0, "compute_us": 3.0, "rows_per_batch": 4.0}
    assert sum(count for _, count in first["latency_histogram_ns"]["buckets"]) == 1000


def test_the_picture_is_an_svg_with_every_level() -> None:
    root = ET.fromstring(report.drawn("a <b> & c", "sub", LEVELS))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b> & c" in texts
    for name in ("p50", "p95", "p99", "1", "2", "4", "8", "1 ms", "10 ms"):
        assert name in texts
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 3 + len(LEVELS)
    for line in lines:
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= picture.WIDTH
            assert 0 <= y <= picture.HEIGHT


def test_the_picture_of_nothing() -> None:
    assert "Nothing was answered." in report.drawn(
        "a", "b", [figures.level_of("closed", 1, Tally(window_ns=1), None)]
    )


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 47_000, [0, 10_000, 20_000, 30_000, 40_000]),
        (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]),
    ],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(wanted)


def test_log_ticks() -> None:
    assert svg.log_ticks(0.9, 60) == pytest.approx([1, 2, 5, 10, 20, 50])
    assert svg.log_ticks(0.01, 500) == pytest.approx([0.01, 0.1, 1, 10, 100])
