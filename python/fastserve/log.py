"""Logging of the server and the command line: lines for people on a terminal, one JSON object a line elsewhere.

A line carries what `extra=` gives it (request_id, model, version). Whatever a client sent is escaped, so that a request
cannot forge a line or drive the terminal. The engine itself configures no logging; only the command line calls `setup`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from fastserve import _core

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_core_logger = logging.getLogger("fastserve.core")


@dataclass(frozen=True)
class LogSettings:
    """What is written; each kind is switched by itself, as Triton has it."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0  # above 0: debug lines too
    iso8601: bool = False  # lines for people have date and time zone as well; JSON lines always do

    def allows(self, level: int) -> bool:
        if level < logging.INFO:
            return self.verbose_level > 0
        if level < logging.WARNING:
            return self.info
        return self.warning if level < logging.ERROR else self.error

    @property
    def lowest(self) -> int:
        """The lowest level of `logging` that is written."""
        levels = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
        return next((level for level in levels if self.allows(level)), logging.CRITICAL + 1)


_AT_LEVEL = {
    "debug": LogSettings(verbose_level=1),
    "info": LogSettings(),
    "warning": LogSettings(info=False),
    "error": LogSettings(info=False, warning=False),
}


def setup(format: str = "auto", level: str = "info") -> None:
    """Sends all logging of the process, the C++ side's included, to stderr. `format`: auto, human, json."""
    global _handler
    terminal = sys.stderr.isatty()
    human = format == "human" or (format == "auto" and terminal)
    _handler = _StderrHandler()
    _handler.setFormatter(HumanFormatter(colour=terminal) if human else JsonFormatter())
    logging.getLogger().handlers[:] = [_handler]
    change(_AT_LEVEL[level])
    _core.set_log_sink(_core_logger.log)


def settings() -> LogSettings:
    return _settings


def change(new: LogSettings) -> None:
    """From the next line on. Without `setup` before, whoever embeds the server has the say: this is remembered only."""
    global _settings
    _settings = new
    if _handler is not None:
        logging.getLogger().setLevel(new.lowest)


def escaped(text: str) -> str:
    """Control characters, line breaks among them, as visible escapes."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value for key, value in record.__dict__.items() if key not in _STANDARD and value is not None
    }


def _iso8601(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Looks sys.stderr up for every line: a progress bar puts itself in front of it for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def filter(self, record: logging.LogRecord) -> bool:
        return _settings.allows(record.levelno) and bool(super().filter(record))

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class HumanFormatter(logging.Formatter):
    """`13:25:01.123 WARNING lifecycle: message  model=digits version=1`, then the traceback if there is one."""

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        if _settings.iso8601:
            moment = _iso8601(record.created)
        else:
            moment = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname:<7}"
        if self._colour and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}\x1b[0m"
        name = record.name.removeprefix("fastserve.")
        line = f"{moment} {level} {name}: {escaped(record.getMessage())}"
        if fields := extra_fields(record):
            line += "  " + " ".join(f"{key}={escaped(str(value))}" for key, value in fields.items())
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n  | {escaped(part)}" for part in trace)
        return line


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, the extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _iso8601(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in extra_fields(record).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_handler: logging.Handler | None = None  # of setup
_settings = LogSettings()
