"""Trace settings, what the engine is told of them, and the files: pure but for the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import InvalidArgument, Unimplemented
from fastserve.frontends.trace_file import TraceFile
from fastserve.frontends.trace_settings import TraceSetting, TraceSettings
from fastserve.frontends.tracing import Tracing


def trace(number: int, model: str = "m") -> dict[str, Any]:
    """As core.take_traces() gives it."""
    return {
        "id": number,
        "request_id": f"r{number}",
        "model_name": model,
        "model_version": 1,
        "timestamps": [("REQUEST_START", 10), ("REQUEST_END", 20)],
    }


def line(number: int, model: str = "m") -> dict[str, Any]:
    times = [{"name": "REQUEST_START", "ns": 10}, {"name": "REQUEST_END", "ns": 20}]
    return {**trace(number, model), "timestamps": times}


def ids(path: Path) -> list[int]:
    return [t["id"] for t in json.loads(path.read_text())]


class FakeCore:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.traces: list[dict[str, Any]] = []

    def set_trace(self, model: str | None, rate: int, count: int, level: bool) -> None:
        self.told.append((model, rate, count, level))

    def clear_trace(self, model: str) -> None:
        self.told.append((model,))

    def take_traces(self) -> list[dict[str, Any]]:
        taken, self.traces = self.traces, []
        return taken


# --- settings


def test_what_a_model_does_not_set_it_has_from_all() -> None:
    settings = TraceSettings(TraceSetting(rate=100), "f")
    settings.change({"trace_level": ["TIMESTAMPS"], "trace_count": ["5"]})
    settings.change({"trace_rate": ["7"]}, "m")
    assert settings.of() == TraceSetting(on=True, rate=100, count=5)
    assert settings.of("m") == TraceSetting(on=True, rate=7, count=5)
    settings.change({"trace_count": ["6"], "trace_rate": ["8"]})
    assert settings.of("m") == TraceSetting(on=True, rate=7, count=6)
    settings.change({"trace_rate": None}, "m")
    assert settings.of("m") == settings.of() == TraceSetting(on=True, rate=8, count=6)
    assert settings.models() == []
    settings.change({"trace_level": [], "trace_rate": None, "trace_count": None})
    assert settings.of("m") == TraceSetting(rate=100)


def test_a_change_is_made_whole_or_not_at_all() -> None:
    settings = TraceSettings(TraceSetting(), "f")
    with pytest.raises(InvalidArgument):
        settings.change({"trace_rate": ["5"], "trace_count": ["x"]}, "m")
    assert settings.of("m") == TraceSetting()
    assert settings.models() == []


def test_as_clients_see_them() -> None:
    assert TraceSettings(TraceSetting(True, 1, 2, 3), "/f").texts("m") == {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": ["1"],
        "trace_count": ["2"],
        "log_frequency": ["3"],
        "trace_file": ["/f"],
        "trace_mode": ["triton"],
    }


@pytest.mark.parametrize("text", ["", "x", "1.5", "+1", "--1", "1 ", "¹", "0x1", "9" * 4000])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(InvalidArgument, match="trace_rate") as caught:
        TraceSettings(TraceSetting(), "f").change({"trace_rate": [text]})
    assert len(str(caught.value)) < 300


def test_without_a_file_it_cannot_be_switched_on() -> None:
    settings = TraceSettings(TraceSetting(), "")
    for model in ("", "m"):
        with pytest.raises(InvalidArgument, match="trace file name is not given"):
            settings.change({"trace_level": ["TIMESTAMPS"]}, model)
    settings.change({"trace_level": ["OFF"]})
    with pytest.raises(Unimplemented):
        settings.change({"trace_file": None})


# --- what the engine is told


def test_the_engine_is_told_of_all_and_of_models_with_their_own(tmp_path: Path) -> None:
    core = FakeCore()
    tracing = Tracing(core, file=tmp_path / "t")
    assert core.told == []  # off, as the engine starts
    tracing.change({"trace_rate": ["2"]}, "m")
    tracing.change({"trace_level": ["TIMESTAMPS"]})
    assert core.told == [("m", 2, -1, False), (None, 1000, -1, True), ("m", 2, -1, True)]
    core.told.clear()
    tracing.change({"log_frequency": ["3"]}, "m")
    tracing.change({"log_frequency": ["3"]}, "n")
    assert core.told == []  # no matter of the engine's; counts go on
    tracing.change({"trace_rate": None}, "m")
    assert core.told == [("m",)]


def test_it_may_be_on_from_the_start(tmp_path: Path) -> None:
    core = FakeCore()
    Tracing(core, TraceSetting(on=True, rate=3, count=4), tmp_path / "t")
    assert core.told == [(None, 3, 4, True)]


async def test_traces_are_written_at_the_end_too(tmp_path: Path) -> None:
    core = FakeCore()
    tracing = Tracing(core, file=tmp_path / "t")
    tracing.change({"log_frequency": ["2"]}, "n")
    tracing.start()
    core.traces = [trace(1), trace(2, "n"), trace(3, "n"), trace(4, "n"), trace(5)]
    await tracing.close()
    assert ids(tmp_path / "t") == [1, 5]
    assert [ids(tmp_path / f"t.{n}") for n in (0, 1)] == [[2, 3], [4]]


async def test_a_frequency_for_all_counts_all_models_together(tmp_path: Path) -> None:
    core = FakeCore()
    tracing = Tracing(core, TraceSetting(log_frequency=2), tmp_path / "t")
    tracing.start()
    core.traces = [trace(1, "a"), trace(2, "b"), trace(3, "a")]
    await tracing.close()
    assert [ids(tmp_path / f"t.{n}") for n in (0, 1)] == [[1, 2], [3]]
    assert not (tmp_path / "t").exists()


async def test_without_a_file_there_is_nothing_to_do() -> None:
    tracing = Tracing(FakeCore())
    tracing.start()
    await tracing.close()
    assert tracing.dropped == 0


async def test_a_disk_that_refuses_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    core = FakeCore()
    tracing = Tracing(core, TraceSetting(log_frequency=1), tmp_path / "gone" / "t")
    tracing.start()
    core.traces = [trace(1), trace(2)]
    await tracing.close()
    assert tracing.dropped == 2
    assert sum("traces are dropped" in r.message for r in caplog.records) == 1


# --- files


def test_the_file_is_a_whole_array_after_every_write(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("of an earlier server")
    file = TraceFile(path, 1 << 20)
    file.append([trace(1), trace(2)])
    assert json.loads(path.read_text()) == [line(1), line(2)]
    file.append([trace(3)])
    assert json.loads(path.read_text()) == [line(1), line(2), line(3)]
    assert file.written_bytes >= path.stat().st_size


@pytest.mark.parametrize("meddle", [Path.unlink, lambda p: p.write_text("["), lambda p: p.write_text("")])
def test_a_file_that_was_moved_or_cut_is_begun_anew(tmp_path: Path, meddle: Callable[[Path], Any]) -> None:
    path = tmp_path / "t.json"
    file = TraceFile(path, 1 << 20)
    file.append([trace(1)])
    meddle(path)
    file.append([trace(2)])
    assert ids(path) == [2]


def test_a_request_id_cannot_break_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    hostile = '"}]\n\x00\u2028é'
    TraceFile(path, 1 << 20).append([{**trace(1), "request_id": hostile}])
    assert json.loads(path.read_text())[0]["request_id"] == hostile


def test_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    probe = TraceFile(tmp_path / "probe", 1 << 20)
    probe.append([trace(1)])
    size = probe.written_bytes
    for limit, written in ((size - 1, False), (size, True), (size + 1, True)):
        path = tmp_path / f"t{limit}"
        file = TraceFile(path, limit)
        file.append([trace(1)])
        assert path.exists() is written
        assert file.dropped == (0 if written else 1)
        file.append([trace(2), trace(3)])
        assert file.dropped == (2 if written else 3)
        file.write_numbered([trace(4)])
        assert not path.with_name(f"{path.name}.0").exists()


def test_numbered_files_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "t", 1 << 20)
    file.write_numbered([trace(1)])
    file.write_numbered([trace(2), trace(3)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.0", "t.1"]
    assert ids(tmp_path / "t.1") == [2, 3]
