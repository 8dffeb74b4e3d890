"""The flags of the configuration tree, for the commands that take them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli.main import CommandError
from fastserve.config.tree import Option, options, sections

if TYPE_CHECKING:
    from fastserve.config.resolve import Resolved


class _Keep(argparse.Action):
    """Keeps the value and the spelling of the flag: an error and `config show` name what the user wrote."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        spelling = option_string or ""
        value = str(values)
        if spelling.startswith("--no-"):
            value = "false"
        given: dict[str, tuple[str, str | list[str]]] = dict(getattr(namespace, "settings", {}))
        if options()[self.dest].is_list:
            earlier = given[self.dest][1] if self.dest in given else []
            given[self.dest] = (spelling, [*earlier, value])
        else:
            given[self.dest] = (spelling, value)
        namespace.settings = given


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML or TOML file with any of the settings below"
    )
    for section in sections():
        group = parser.add_argument_group(section)
        for option in options().values():
            if option.section == section:
                _add(group, option)


def _add(group: Any, option: Option) -> None:
    described = option.about.description.replace("%", "%%")
    if option.default is not None and option.default is not False and option.default != ():
        described += f" ({_size(option)})"
    metavar = "|".join(option.choices) if option.choices else option.name.rpartition("_")[2].upper()
    kwargs: dict[str, Any] = {"action": _Keep, "dest": option.path, "default": argparse.SUPPRESS}
    if option.is_flag:
        kwargs |= {"nargs": "?", "const": "true"}
        metavar = "true|false"
    plain, dotted = option.flags[:-1], option.flags[-1]
    if plain:
        group.add_argument(*plain, help=described, metavar=metavar, **kwargs)
        group.add_argument(dotted, help=argparse.SUPPRESS, **kwargs)
    else:
        group.add_argument(dotted, help=described, metavar=metavar, **kwargs)
    if option.is_flag and plain:
        kwargs |= {"nargs": 0}
        group.add_argument(plain[0].replace("--", "--no-", 1), help=argparse.SUPPRESS, **kwargs)


def _size(option: Option) -> str:
    if option.about.is_bytes and option.default % (1 << 20) == 0:
        return f"{option.default >> 20}MiB"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


def resolved(args: argparse.Namespace) -> Resolved:
    """The configuration that the arguments, the file and the environment make. Raises CommandError."""
    from fastserve.config.resolve import ConfigError, Flag, resolve

    flags = {path: Flag(*given) for path, given in getattr(args, "settings", {}).items()}
    try:
        return resolve(flags=flags, file=args.config, environ=os.environ)
    except ConfigError as error:
        raise CommandError(str(error)) from None
