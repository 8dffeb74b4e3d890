"""Log settings as both front ends have them: Triton's names and words over fastserve.log.

Values are plain: bool, int, str, or None for a setting that is named and left as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastserve import log
from fastserve.errors import InvalidArgument, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS

Value = bool | int | str | None

_SWITCHES = {"log_info": "info", "log_warning": "warning", "log_error": "error"}
_FORMATS = {"default": False, "ISO8601": True}
MAX_VERBOSE_LEVEL = (1 << 32) - 1


def current() -> dict[str, bool | int | str]:
    """log_file "" is stderr."""
    now = log.settings()
    return {
        "log_file": "",
        **{name: bool(getattr(now, field)) for name, field in _SWITCHES.items()},
        "log_verbose_level": now.verbose_level,
        "log_format": "ISO8601" if now.iso8601 else "default",
    }


def change(values: Mapping[str, Value]) -> None:
    """All of it or, with InvalidArgument or Unimplemented, nothing."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in current():
            raise InvalidArgument(f"unknown log setting '{name[:MAX_ECHO_CHARS]}'")
        if value is not None:
            fields |= _checked(name, value)
    log.change(replace(log.settings(), **fields))


def _checked(name: str, value: bool | int | str) -> dict[str, Any]:
    if name == "log_file":  # a client must not choose where the server writes
        raise Unimplemented("log file location can not be updated through network protocol")
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise InvalidArgument(f"expect boolean for '{name}', got {_shown(value)}")
        return {_SWITCHES[name]: value}
    if name == "log_verbose_level":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_VERBOSE_LEVEL:
            raise InvalidArgument(f"expect int32 for '{name}', 0 or more, got {_shown(value)}")
        return {"verbose_level": value}
    if not isinstance(value, str):
        raise InvalidArgument(f"expect string for '{name}', got {_shown(value)}")
    if value not in _FORMATS:
        raise InvalidArgument(
            f"invalid argument for {name}, got: {value[:MAX_ECHO_CHARS]}, want default or ISO8601"
        )
    return {"iso8601": _FORMATS[value]}


def _shown(value: object) -> str:
    return repr(value)[:MAX_ECHO_CHARS]
