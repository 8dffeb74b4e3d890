"""Arguments -> command -> exit code; and the one line that a user gets when something is wrong."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

USAGE_ERROR = 2

_EXAMPLES = """\
examples:
  fastserve serve --model-repository models        serve every model of a folder in Triton's layout
  fastserve check models                           find what is wrong with it, before a server does
  fastserve infer digits --input image=random      ask a running server
  fastserve bench digits                           how many requests it answers, and how fast
  fastserve config show                            every setting, its value and where it came from
"""

# Command -> what --help says of it. Its module, fastserve.cli.<command>, has EXAMPLES, arguments(parser) and
# run(args) -> exit code.
_COMMANDS = {
    "serve": "serve the models of a repository",
    "check": "check a model repository without a server",
    "manifest": "write checksums of the files of versions, or compare them",
    "devices": "list the GPUs of this machine",
    "infer": "send one request to a server",
    "bench": "measure how a server answers under load",
    "models": "list the models of a server, or watch them",
    "load": "load a model, or load it again",
    "unload": "take a model out of service",
    "reload": "have a server read its repositories again",
    "label": "show or change the labels of a model's versions",
    "explain": "say how a model's requests are batched, and why",
    "config": "show the configuration",
}


class CommandError(Exception):
    """What the user has to put right: one line, and the exit code."""

    def __init__(self, message: str, code: int = USAGE_ERROR) -> None:
        super().__init__(message)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 (the answer is a no: problems found, the server refused), 2 (cannot be started like this)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    try:
        code = _run([argument for argument in arguments if argument != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away: `fastserve check models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 1
    except Exception as error:
        if debug:
            raise
        line, code = _explained(error)
        print(f"fastserve: error: {line}", file=sys.stderr)
        return code


def _run(arguments: list[str]) -> int:
    parser = _Parser(
        prog="fastserve",
        description="A model server: gRPC and REST of the Open Inference Protocol.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument(
        "--debug", action="store_true", help="a traceback where an error is one line otherwise"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    chosen = next((argument for argument in arguments if not argument.startswith("-")), "")
    for name, summary in _COMMANDS.items():
        module = importlib.import_module(f"fastserve.cli.{name}") if name == chosen else None
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__ if module else None,
            epilog=module.EXAMPLES if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if module:
            module.arguments(command)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        help_of = f"fastserve {args.command} --help" if args.command else "fastserve --help"
        raise CommandError(f"unknown argument {unknown[0]} (see {help_of})")
    if args.version:
        return _print_version()
    if not args.command:
        parser.print_help()
        return 0
    code: int = importlib.import_module(f"fastserve.cli.{args.command}").run(args)
    return code


def _print_version() -> int:
    import fastserve

    print(f"fastserve {fastserve.__version__}")
    return 0


def _explained(error: Exception) -> tuple[str, int]:
    """The line for an error that has one; anything else is a fault of ours and says how to see more."""
    from fastserve.errors import FastserveError

    if isinstance(error, CommandError):
        return _one_line(error), error.code
    if isinstance(error, FastserveError):
        return error.message.replace("\n", " "), USAGE_ERROR
    if isinstance(error, OSError):
        return _one_line(error), USAGE_ERROR
    return f"{type(error).__name__}: {_one_line(error)} (a fault of fastserve; --debug shows where)", 70


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
