"""Loads and unloads as both front ends have them: parameters are checked in Triton's words, then ModelControl works.

Parameters are plain values here: bool, int, str, bytes, or None where a message has nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastserve.errors import InvalidArgument, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS, check_model
from fastserve.frontends.served import Served

Value = bool | int | str | bytes | None

_KINDS: dict[str, tuple[type, str]] = {"config": (str, "string_param"), "file:": (bytes, "bytes_param")}


def refuse_repository_name(name: str) -> None:
    if name:
        raise Unimplemented("'repository_name' specification is not supported")


async def load(served: Served, model: str, parameters: Mapping[str, Value]) -> None:
    check_model(model)
    for name, value in parameters.items():
        _check_load_parameter(name, value)
    await served.control.load(model)


async def unload(served: Served, model: str, parameters: Mapping[str, Value]) -> None:
    """`unload_dependents` is taken and changes nothing: there are no ensembles, so no model depends on another."""
    check_model(model)
    for name, value in parameters.items():
        if name != "unload_dependents":
            raise InvalidArgument(f"unrecognized unload parameter '{name[:MAX_ECHO_CHARS]}'.")
        if not isinstance(value, bool):
            raise InvalidArgument(f"invalid value type for unload parameter '{name}', expected bool_param.")
    await served.control.unload(model)


def _check_load_parameter(name: str, value: Value) -> None:
    shown = name[:MAX_ECHO_CHARS]
    kind = "file:" if name.startswith("file:") else name
    if kind not in _KINDS:
        raise InvalidArgument(f"unrecognized load parameter '{shown}'.")
    wanted, words = _KINDS[kind]
    if not isinstance(value, wanted):
        raise InvalidArgument(f"invalid value type for load parameter '{shown}', expected {words}.")
    what = "a configuration" if kind == "config" else "model files"
    raise Unimplemented(
        f"load parameter '{shown}': {what} in the request is not supported yet, put it into the model repository"
    )
