"""What is traced, for all models and for each: Triton's trace extension (contracts §1), as pure data.

A field of a model that was not set, or was cleared, has the value of the setting for all; one of those has the value that the
server was started with. Values arrive as lists of texts (None: clear), as the RPC has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastserve.errors import InvalidArgument, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS

Changes = Mapping[str, list[str] | None]

MAX_LOG_FREQUENCY = 10_000  # traces of a file are kept in memory until it is full
_MOST = (1 << 31) - 1
# Name on the wire -> field, lowest and highest value.
_NUMBERS = {
    "trace_rate": ("rate", 1, _MOST),
    "trace_count": ("count", -1, _MOST),
    "log_frequency": ("log_frequency", 0, MAX_LOG_FREQUENCY),
}
_LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")


@dataclass(frozen=True)
class TraceSetting:
    on: bool = False  # level TIMESTAMPS; else OFF
    rate: int = 1000  # one request of so many
    count: int = -1  # traces until it stops by itself; -1: no end
    log_frequency: int = 0  # traces of a file with a number; 0: one file for all


class TraceSettings:
    def __init__(self, default: TraceSetting, file: str) -> None:
        """`file`: where traces go; "": tracing cannot be switched on."""
        self._default = default
        self._file = file
        self._own: dict[str, dict[str, Any]] = {}  # model ("" = all) -> fields that it sets

    def of(self, model: str = "") -> TraceSetting:
        """What holds for a model, or for all that set nothing."""
        general = replace(self._default, **self._own.get("", {}))
        return replace(general, **self._own.get(model, {})) if model else general

    def samples_itself(self, model: str) -> bool:
        """The model has a rate, count or level of its own, so it is counted apart from the others."""
        return bool(self._own.get(model, {}).keys() & {"on", "rate", "count"})

    def numbered_with(self, model: str) -> str:
        """Whose traces are in numbered files with the model's: itself, or "" = all that set no log_frequency."""
        return model if "log_frequency" in self._own.get(model, {}) else ""

    def models(self) -> list[str]:
        """Those that set anything."""
        return sorted(model for model in self._own if model)

    def change(self, changes: Changes, model: str = "") -> set[str]:
        """All of it or, with InvalidArgument or Unimplemented, nothing. The fields that were named."""
        parsed = {field: value for name, values in changes.items() for field, value in _parsed(name, values)}
        own = {**self._own.get(model, {}), **parsed}
        own = {field: value for field, value in own.items() if value is not None}
        if own.get("on") and not self._file:
            raise InvalidArgument(
                "Attempting to set invalid trace setting :trace file name is not given "
                "(the server has to be started with --trace-file)"
            )
        self._own[model] = own
        if not own:
            del self._own[model]
        return set(parsed)

    def texts(self, model: str = "") -> dict[str, list[str]]:
        """As the RPC and the routes show it."""
        setting = self.of(model)
        return {
            "trace_level": ["TIMESTAMPS" if setting.on else "OFF"],
            "trace_rate": [str(setting.rate)],
            "trace_count": [str(setting.count)],
            "log_frequency": [str(setting.log_frequency)],
            "trace_file": [self._file],
            "trace_mode": ["triton"],
        }


def _parsed(name: str, values: list[str] | None) -> list[tuple[str, Any]]:
    """Field and value (None: clear) of one change; nothing for a change that changes nothing."""
    if name == "trace_file":  # a client must not choose where the server writes
        raise Unimplemented("trace file location can not be updated through network protocol")
    if name == "trace_level":
        return [("on", None if not values else _level(values))]
    if name in _NUMBERS:
        field, low, high = _NUMBERS[name]
        return [(field, None if not values else _number(name, _only(name, values), low, high))]
    if name == "trace_mode":
        return _mode(values)
    raise InvalidArgument(f"unknown trace setting '{name[:MAX_ECHO_CHARS]}'")


def _level(values: list[str]) -> bool:
    for value in values:
        if value not in _LEVELS:
            raise InvalidArgument(f"trace_level: got '{value[:MAX_ECHO_CHARS]}', want OFF or TIMESTAMPS")
    if "OFF" in values and len(values) > 1:
        raise InvalidArgument("trace_level: Expect only one trace level 'OFF' is specified")
    if "TENSORS" in values:
        raise Unimplemented("trace_level: TENSORS is not supported yet, use TIMESTAMPS")
    return "TIMESTAMPS" in values


def _mode(values: list[str] | None) -> list[tuple[str, Any]]:
    mode = _only("trace_mode", values) if values else "triton"
    if mode == "opentelemetry":
        raise Unimplemented("trace_mode: opentelemetry is not supported yet, use triton")
    if mode != "triton":
        raise InvalidArgument(f"trace_mode: got '{mode[:MAX_ECHO_CHARS]}', want triton")
    return []


def _only(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise InvalidArgument(f"expect only 1 value for '{name}', got {len(values)}")
    return values[0]


def _number(name: str, text: str, low: int, high: int) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise InvalidArgument(f"Unable to parse '{name}', got: {text[:MAX_ECHO_CHARS]}")
    if len(digits) > 18 or not low <= int(text) <= high:
        raise InvalidArgument(
            f"Unable to parse '{name}', value is out of range [ {low}, {high} ], got: {text[:MAX_ECHO_CHARS]}"
        )
    return int(text)
