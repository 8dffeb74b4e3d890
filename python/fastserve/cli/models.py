"""Lists the models of a running server with their state."""

from __future__ import annotations

import argparse
import json

from fastserve.cli import connect

EXAMPLES = """\
examples:
  fastserve models
  fastserve models --url http://127.0.0.1:9000 --json
  fastserve models --url grpc://127.0.0.1:8001
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    connect.arguments(parser, default_url="http://127.0.0.1:8000")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    with connect.server(args) as server:
        index = server.index()
    if args.json:
        print(json.dumps([vars(entry) for entry in index], indent=2))
        return 0
    width = max((len(entry.name) for entry in index), default=0)
    for entry in index:
        line = f"{entry.name:<{width}}  {entry.version or '-':>4}  {entry.state:<11}"
        print(f"{line}  {entry.reason}".rstrip())
    return 0
