"""Shows or changes the labels of a model: names that stand for a version, or for several with weights. `default` is also for
requests that name no version. Versions need not be ready, or there at all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from fastserve.cli import connect
from fastserve.cli.main import CommandError

EXAMPLES = """\
examples:
  fastserve label digits                                   what there is
  fastserve label digits stable=3                          one version
  fastserve label digits canary=3:95,4:5                   5 of 100 requests by this label go to version 4
  fastserve label digits stable=4 --remove canary          both at once: no request sees one without the other
  fastserve label digits stable=4 --if stable=3            only where it is 3 now
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "labels", metavar="LABEL=VERSION[:WEIGHT][,VERSION:WEIGHT]", nargs="*", help="none: shows them"
    )
    parser.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="LABEL",
        help="what was assigned to it; what the configuration says holds again",
    )
    parser.add_argument(
        "--if",
        dest="expected",
        action="append",
        default=[],
        metavar="LABEL=VERSION...",
        help="change only where it stands for this now; LABEL= alone: where it is not there",
    )
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=10.0)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    if connect.url_of(args).startswith(("grpc", "unix:")):
        raise CommandError(f"--url: got '{args.url}', want the REST port (http://host:port)")
    changes: dict[str, Mapping[int, float] | None] = {**_read(args.labels)}
    for label in args.remove:
        if label in changes:
            raise CommandError(f"--remove: label '{label}' is assigned as well")
        changes[label] = None
    absent = [text[:-1] for text in args.expected if text.endswith("=")]
    expected = {**_read(t for t in args.expected if not t.endswith("=")), **dict.fromkeys(absent)}
    if expected and not changes:
        raise CommandError("--if: there is nothing to change")
    with connect.server(args) as server:
        labels = server.change_labels(args.model, changes, expected) if changes else server.labels(args.model)
    if args.json:
        print(json.dumps(labels, indent=2))
    else:
        print("\n".join(_lines(labels)) or f"{args.model} has no labels")
    return 0


def _read(texts: Any) -> dict[str, dict[int, float]]:
    from fastserve.label_text import read_labels_text

    try:
        return read_labels_text(" ".join(texts))
    except ValueError as error:
        raise CommandError(str(error)) from None


def _lines(labels: list[dict[str, Any]]) -> list[str]:
    width = max((len(label["name"]) for label in labels), default=0)
    lines = []
    for label in labels:
        total = sum(v["weight"] for v in label["versions"])
        for index, v in enumerate(label["versions"]):
            name = label["name"] if index == 0 else ""
            state = "ready" if v["ready"] else "not ready"
            line = f"{name:<{width}}  version {v['version']:>4}  {v['weight'] / total:>8.2%}  {state:<9}"
            lines.append(
                f"{line}  {v['requests']:>10,} requests  {label['source'] if index == 0 else ''}".rstrip()
            )
    return lines
