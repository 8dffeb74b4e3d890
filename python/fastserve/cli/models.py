"""Lists the models of a running server with their state."""

from __future__ import annotations

import argparse
import json

EXAMPLES = """\
examples:
  fastserve models
  fastserve models --url http://127.0.0.1:9000 --json
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="address of the server's REST port")
    parser.add_argument("--json", action="store_true", help="the server's answer as it is")


def run(args: argparse.Namespace) -> int:
    from fastserve.cli.rest import Rest

    with Rest(args.url) as rest:
        index = rest.json("POST", "/v2/repository/index")
    if args.json:
        print(json.dumps(index, indent=2))
        return 0
    width = max((len(entry["name"]) for entry in index), default=0)
    for entry in index:
        line = f"{entry['name']:<{width}}  {entry.get('version') or '-':>4}  {entry.get('state', ''):<11}"
        print(f"{line}  {entry.get('reason', '')}".rstrip())
    return 0
