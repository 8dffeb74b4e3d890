"""Loads and unloads as both front ends have them: parameters are checked in Triton's words, then ModelControl works.

Parameters are plain values here: bool, int, str, bytes, or None where a message has nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastserve.errors import InvalidArgument, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS, check_model
from fastserve.frontends.served import Served
from fastserve.lifecycle.load_override import Override

Value = bool | int | str | bytes | None

FILE = "file:"  # begins the names of parameters that are files


def refuse_repository_name(name: str) -> None:
    if name:
        raise Unimplemented("'repository_name' specification is not supported")


async def load(served: Served, model: str, parameters: Mapping[str, Value]) -> None:
    """Of `config` and `file:PATH`, as Triton has them."""
    check_model(model)
    await served.control.load(model, _override(parameters))


async def unload(served: Served, model: str, parameters: Mapping[str, Value]) -> None:
    """`unload_dependents` is taken and changes nothing: there are no ensembles, so no model depends on another."""
    check_model(model)
    for name, value in parameters.items():
        if name != "unload_dependents":
            raise InvalidArgument(f"unrecognized unload parameter '{name[:MAX_ECHO_CHARS]}'.")
        if not isinstance(value, bool):
            raise InvalidArgument(f"invalid value type for unload parameter '{name}', expected bool_param.")
    await served.control.unload(model)


def _override(parameters: Mapping[str, Value]) -> Override | None:
    config, files = None, {}
    for name, value in parameters.items():
        shown = name[:MAX_ECHO_CHARS]
        if name == "config":
            if not isinstance(value, str):
                raise InvalidArgument(
                    f"invalid value type for load parameter '{shown}', expected string_param."
                )
            config = value
        elif name.startswith(FILE):
            if not isinstance(value, bytes):
                raise InvalidArgument(
                    f"invalid value type for load parameter '{shown}', expected bytes_param."
                )
            files[name.removeprefix(FILE)] = value
        else:
            raise InvalidArgument(f"unrecognized load parameter '{shown}'.")
    return None if config is None and not files else Override(config or "", files)
