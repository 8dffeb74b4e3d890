"""Logging of the server and the command line: lines for people on a terminal, one JSON object a line elsewhere.

A line carries what `extra=` gives it (request_id, model, version). Whatever a client sent is escaped, so that a request
cannot forge a line or drive the terminal. The engine itself configures no logging; only the command line calls `setup`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from fastserve import _core

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLOURS = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_core_logger = logging.getLogger("fastserve.core")


def setup(format: str = "auto", level: str = "info") -> None:
    """Sends all logging of the process, the C++ side's included, to stderr. `format`: auto, human, json."""
    terminal = sys.stderr.isatty()
    human = format == "human" or (format == "auto" and terminal)
    handler = _StderrHandler()
    handler.setFormatter(HumanFormatter(colour=terminal) if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _core.set_log_sink(_core_logger.log)


def escaped(text: str) -> str:
    """Control characters, line breaks among them, as visible escapes."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode(), text)


def extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    return {
        key: value for key, value in record.__dict__.items() if key not in _STANDARD and value is not None
    }


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Looks sys.stderr up for every line: a progress bar puts itself in front of it for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class HumanFormatter(logging.Formatter):
    """`13:25:01.123 WARNING lifecycle: message  model=digits version=1`, then the traceback if there is one."""

    def __init__(self, colour: bool = False) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
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
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in extra_fields(record).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
