"""Takes a model of a running server out of service (--model-control-mode explicit). Its running requests are answered first."""

from __future__ import annotations

import argparse

from fastserve.cli import connect

EXAMPLES = """\
examples:
  fastserve unload digits
  fastserve unload digits --url grpc://127.0.0.1:8001      Triton's as well
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "--dependents", action="store_true", help="of an ensemble: its parts as well (Triton)"
    )
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=600.0)


def run(args: argparse.Namespace) -> int:
    with connect.server(args) as server:
        was_there = any(entry.name == args.model and entry.state == "READY" for entry in server.index())
        server.unload(args.model, dependents=args.dependents)
    print(f"{args.model} is unloaded" if was_there else f"{args.model} was not loaded")
    return 0
