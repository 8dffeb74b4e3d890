"""The table of `fastserve models`, and what `reload` says, from rows that we write."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve.cli.load_progress import progress_line
from fastserve.cli.model_rows import Row, Rows
from fastserve.cli.model_table import bytes_text, lines, summary
from fastserve.cli.models import rates_of
from fastserve.cli.reload import differences
from fastserve.client import IndexEntry, ModelStatistics
from fastserve.client.result import Total
from fastserve.errors import NotFound

READY = Row("digits", "2", "READY", labels={"stable": 1}, instances=2, memory_bytes=12_300_000, requests=1234)
LOADING = Row("digits", "3", "LOADING", "compiling", progress=0.4)
FAILED = Row("cats", "", "FAILED", "cats/config.pbtxt:3: unknown field", retry_in_s=12.0)
NEVER = Row("new")


def test_the_table() -> None:
    assert lines([FAILED, READY, LOADING, NEVER], {("digits", "2"): 61.25}) == [
        "MODEL   VERSION  STATE                 INSTANCES   MEMORY  REQUESTS    RATE  LABELS  REASON",
        "cats             FAILED                                                              "
        "cats/config.pbtxt:3: unknown field (again in 12 s)",
        "digits        2  READY                         2  12.3 MB     1,234  61.2/s  stable",
        "digits        3  LOADING [####......]                                                compiling",
        "new              -",
    ]


def test_columns_without_anything_are_left_out() -> None:
    assert lines([Row("m", "1", "READY")]) == ["MODEL  VERSION  STATE", "m            1  READY"]
    assert lines([]) == []


def test_a_narrow_screen_and_a_terminal_that_shall_not_be_steered() -> None:
    table = lines([Row("m", "1", "FAILED", "\x1b[2J" + "x" * 100)], width=40, color=False)
    assert all(len(line) <= 40 for line in table)
    assert table[1].endswith("…")
    assert "\x1b" not in "".join(table)


def test_colours_change_no_column() -> None:
    plain = lines([READY, LOADING, FAILED], color=False)
    coloured = lines([READY, LOADING, FAILED], color=True)
    strip = [
        line.replace("\x1b[32m", "").replace("\x1b[33m", "").replace("\x1b[31m", "") for line in coloured
    ]
    assert [line.replace("\x1b[0m", "") for line in strip] == plain
    assert "\x1b[32mREADY\x1b[0m" in coloured[1]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1 MB")),
        *((12_345_678, "12.3 MB"), (10**9, "1 GB"), (5 * 10**12, "5,000 GB")),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_the_summary() -> None:
    assert summary([READY, LOADING, FAILED, NEVER]) == "1 ready, 1 loading, 1 failed"
    assert summary([NEVER]) == "nothing is loaded"


def test_rates_begin_anew_with_a_version_that_was_loaded_again() -> None:
    rows = [Row("m", "1", "READY", requests=30), Row("n", "1", "READY", requests=5), Row("new", requests=3)]
    before = {("m", "1"): (10.0, 10), ("n", "1"): (10.0, 100)}
    assert rates_of(rows, before, 12.0) == {("m", "1"): 10.0}


def test_progress_is_of_the_one_that_is_furthest() -> None:
    assert progress_line([READY]) == ""
    rows = [Row("a", "1", "NEW"), LOADING, READY]
    assert progress_line(rows) == "digits version 3 [####......] compiling  and 1 more"


def test_what_a_reload_changed() -> None:
    before = {row.key: row for row in (READY, Row("old", "1", "READY"), Row("cats", "1", "READY"))}
    kept = Row("cats", "1", "READY", "serves on as it was; the new one failed: no")
    after = [READY, kept, FAILED, Row("digits", "4", "READY"), NEVER]
    assert differences(before, after) == [
        "cats version 1: serves on as it was; the new one failed: no",
        "cats failed: cats/config.pbtxt:3: unknown field",
        "digits version 4 is ready",
        "old version 1 is gone",
    ]


class Elsewhere:
    """A client of a server that is not fastserve: what Triton's API has."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.asked = 0

    def states(self) -> list[dict[str, object]]:
        self.asked += 1
        error = NotFound("no such route")
        error.http_status = self.status
        raise error

    def index(self) -> list[IndexEntry]:
        return [
            IndexEntry("digits", "1", "READY"),
            IndexEntry("digits", "2", "UNAVAILABLE", "version not found"),
            IndexEntry("old", "1", "UNAVAILABLE", "unloaded"),
            IndexEntry("new"),
        ]

    def statistics(self) -> list[ModelStatistics]:
        return [ModelStatistics("digits", "1", totals={"success": Total(7, 0), "fail": Total(1, 0)})]


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_other_servers_are_asked_what_they_know(status: int) -> None:
    client: Any = Elsewhere(status)
    rows = Rows(client, own=True)
    for _ in range(2):
        found = rows.read()
    assert [(r.name, r.version, r.state, r.requests) for r in found] == [
        ("digits", "1", "READY", 7),
        ("digits", "2", "FAILED", None),
        ("old", "1", "UNLOADED", None),
        ("new", "", "", None),
    ]
    assert client.asked == 1


def test_a_server_that_is_in_trouble_is_not_another_one() -> None:
    client: Any = Elsewhere(503)
    with pytest.raises(NotFound):
        Rows(client, own=True).read()
