"""Lines of the log: for people, for machines, and against forgery."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fastserve import log
from fastserve.log import HumanFormatter, JsonFormatter, LogSettings


def record(message: str, *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("fastserve.server", logging.WARNING, __file__, 1, message, args, exc_info)
    made.__dict__.update(extra)
    made.created = 0.0
    return made


def test_json_line() -> None:
    line = JsonFormatter().format(
        record("model %s", "m", request_id="r-1", model="m", version=3, nothing=None)
    )
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "warning",
        "logger": "fastserve.server",
        "message": "model m",
        "request_id": "r-1",
        "model": "m",
        "version": 3,
    }


def test_human_line() -> None:
    line = HumanFormatter().format(record("model %s", "m", request_id="r-1", version=3))
    assert line.endswith(" WARNING server: model m  request_id=r-1 version=3")


@pytest.mark.parametrize("formatter", [HumanFormatter(), HumanFormatter(colour=True), JsonFormatter()])
def test_a_request_cannot_forge_a_line_or_drive_the_terminal(formatter: logging.Formatter) -> None:
    hostile = "a\r\n00:00:00.000 ERROR server: forged\x1b]0;title\x07\u2028\x9b31m"
    line = formatter.format(record("%s", hostile, request_id=hostile))
    assert "\n" not in line
    assert "\r" not in line
    assert not {"\x1b]", "\x07", "\u2028", "\x9b"} & {
        part for part in ("\x1b]", "\x07", "\u2028", "\x9b") if part in line
    }


def test_extra_fields_do_not_replace_the_line_s_own() -> None:
    line = json.loads(JsonFormatter().format(record("hello", level="forged", time="never")))
    assert (line["level"], line["time"][:4]) == ("warning", "1970")


def test_exceptions() -> None:
    try:
        raise ValueError("bad\nvalue")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    assert "ValueError: bad\nvalue" in json.loads(JsonFormatter().format(made))["exception"]
    human = HumanFormatter().format(made).splitlines()
    assert len(human) > 3
    assert all(line.startswith("  | ") for line in human[1:])


@pytest.fixture
def root() -> Iterator[None]:
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
    log._core.set_log_sink(None)
    log._handler = None
    log.change(LogSettings())


@pytest.mark.usefixtures("root")
def test_setup_writes_json_to_what_stderr_is_now(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup("auto", "info")
    logging.getLogger("fastserve.x").info("hello", extra={"model": "m"})
    logging.getLogger("fastserve.x").debug("not this")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["model"] == "m"
    log.setup("human", "debug")
    logging.getLogger("fastserve.x").debug("now this")
    assert "DEBUG   x: now this" in capsys.readouterr().err


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (LogSettings(), "info warning error"),
        (LogSettings(verbose_level=1), "debug info warning error"),
        (LogSettings(info=False), "warning error"),
        (LogSettings(warning=False), "info error"),
        (LogSettings(error=False), "info warning"),
        (LogSettings(info=False, warning=False, verbose_level=3), "debug error"),
        (LogSettings(info=False, warning=False, error=False), ""),
    ],
)
def test_each_kind_is_switched_by_itself(
    capsys: pytest.CaptureFixture[str], settings: LogSettings, written: str
) -> None:
    log.setup("json", "error")
    log.change(settings)
    assert log.settings() == settings
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("fastserve.x"), level)("hello")
    log._core_logger.log(logging.WARNING, "of the engine")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines if line["message"] == "hello"] == written.split()
    assert any(line["message"] == "of the engine" for line in lines) is settings.warning
    assert logging.getLogger("fastserve.x").isEnabledFor(logging.DEBUG) is (settings.verbose_level > 0)


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_level_of_the_start_as_settings(level: str) -> None:
    log.setup("json", level)
    assert logging.getLevelName(log.settings().lowest) == level.upper()


@pytest.mark.usefixtures("root")
def test_times_for_people_with_date_and_zone() -> None:
    log.setup("human", "info")
    log.change(LogSettings(iso8601=True))
    assert (
        HumanFormatter().format(record("hello")).startswith("1970-01-01T00:00:00.000Z WARNING server: hello")
    )


def test_without_setup_a_change_leaves_the_process_alone() -> None:
    before = logging.getLogger().level
    log.change(LogSettings(info=False))
    assert logging.getLogger().level == before
    log.change(LogSettings())
