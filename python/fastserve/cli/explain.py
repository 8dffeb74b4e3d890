"""Says what a model's batch policy believes (the cost of a batch by its rows, the rate of arrivals, the target), what it chose
in the last minute and why."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fastserve.cli import connect
from fastserve.cli.main import CommandError

EXAMPLES = """\
examples:
  fastserve explain digits
  fastserve explain digits --picture digits.svg    latency and throughput against batch size
  fastserve explain digits --json | jq .decisions
  watch -n 1 fastserve explain digits --url http://127.0.0.1:9000
"""
_BAR = 30  # characters of the longest


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--model-version", default="", metavar="N", help="default: the one that serves")
    connect.arguments(parser, default_url="http://127.0.0.1:8000", timeout_s=10.0)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="write the picture there as well")


def run(args: argparse.Namespace) -> int:
    if connect.url_of(args).startswith(("grpc", "unix:")):
        raise CommandError(
            f"--url: got '{args.url}', want the REST port (http://host:port): gRPC does not have it"
        )
    with connect.server(args) as server:
        view = server.scheduling(args.model, version=args.model_version)
        if args.picture:
            args.picture.write_text(server.scheduling_picture(args.model, version=args.model_version))
    if args.json:
        print(json.dumps(view, indent=2))
        return 0
    print(f"{view['model']}, version {view['version']}\n")
    print("\n".join(view["words"]))
    for instance in view["instances"]:
        print("\n" + "\n".join(_table(instance, view["batches"])))
    if args.picture:
        print(f"\npicture: {args.picture}")
    return 0


def _table(instance: dict[str, object], batches: dict[str, int]) -> list[str]:
    costs: list[dict[str, int]] = instance["costs"]  # type: ignore[assignment]
    lines = [f"{instance['name']}: {'busy' if instance['busy'] else 'idle'}"]
    if not costs:
        return lines
    lines.append(f"  {'rows':>6} {'mean ms':>10} {'p95 ms':>10} {'rows/s':>10}   batches of the last minute")
    most = max(batches.values(), default=0)
    for cost in costs:
        ran = batches.get(str(cost["rows"]), 0)
        bar = "█" * -(-_BAR * ran // most) if most else ""
        lines.append(
            f"  {cost['rows']:>6} {cost['mean_ns'] / 1e6:>10.3f} {cost['high_ns'] / 1e6:>10.3f} "
            f"{cost['rows'] * 1e9 / max(cost['mean_ns'], 1):>10,.0f}   {bar} {ran or ''}".rstrip()
        )
    return lines
