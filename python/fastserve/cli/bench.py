"""Makes load for a model of a KServe v2 server (ours, Triton, OpenVINO Model Server, ...) and shows what it answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastserve.cli import connect, inputs
from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    from fastserve.bench.figures import Level
    from fastserve.bench.plan import Target
    from fastserve.bench.run import Options
    from fastserve.bench.search import Search
    from fastserve.client import Client, ModelMetadata

_METADATA_TIMEOUT_S = 10.0

EXAMPLES = f"""\
examples:
  fastserve bench digits                                  1 to 64 requests in flight, random data, gRPC
  fastserve bench digits --concurrency 1,8,32 --picture digits.svg --json digits.json
  fastserve bench digits --rate 1000:8000:1000            open loop: 1,000 to 8,000 requests a second (Poisson)
  fastserve bench digits --target-p99 20                  the highest rate with 99 % of the answers within 20 ms
  fastserve bench resnet --input image=cat.npy --url http://127.0.0.1:8000 --processes 2
  fastserve bench detector --shape image=1,480,640,3 --batch 1 --duration 30

Levels are lists and ranges: 1,4,16 or 10:50:10 (steps of 10) or 1:64 (doubling) or 1:64:*4.

Closed loop (--concurrency): a place sends its next request when its answer is in. Latency counts from the send, so a slow
server slows its own load: percentiles say what so many patient clients see.
Open loop (--rate, --target-p99): the times of sending are fixed before. Latency counts from when a request was due,
waiting for a free connection included (no coordinated omission).

{inputs.HELP}"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    connect.arguments(parser, default_url="grpc://127.0.0.1:8001", timeout_s=10.0)
    inputs.arguments(parser)
    parser.add_argument(
        "--version", dest="model_version", default="", metavar="N", help="of the model; else its newest"
    )
    load = parser.add_argument_group("load")
    how = load.add_mutually_exclusive_group()
    how.add_argument(
        "--concurrency",
        metavar="LEVELS",
        help="closed loop: requests in flight (default: 1:64, times --processes)",
    )
    how.add_argument("--rate", metavar="LEVELS", help="open loop: requests a second")
    load.add_argument(
        "--arrival",
        choices=("poisson", "constant"),
        default="poisson",
        help="open loop: gaps between requests",
    )
    load.add_argument(
        "--target-p99",
        type=float,
        metavar="MS",
        help="search for the highest rate whose p99 is at most this (open loop; --rate: where to begin)",
    )
    load.add_argument(
        "--max-errors",
        type=float,
        default=0.0,
        metavar="%",
        help="with --target-p99: errors that are allowed",
    )
    load.add_argument("--duration", type=float, default=5.0, metavar="S", help="of a level (default: 5)")
    load.add_argument(
        "--warmup", type=float, default=1.0, metavar="S", help="before it, not counted (default: 1)"
    )
    load.add_argument("--requests", type=int, default=0, metavar="N", help="end a level after so many")
    load.add_argument(
        "--samples", type=int, default=1, metavar="N", help="different random requests, in turn"
    )
    load.add_argument("--processes", type=int, default=1, metavar="N", help="that make the load (default: 1)")
    load.add_argument(
        "--connections",
        type=int,
        default=0,
        metavar="N",
        help="default: gRPC 4; HTTP one a request in flight, open loop enough for 0.1 s of answers, at most 256",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", type=Path, metavar="FILE", help="every figure, with the machine's facts")
    output.add_argument("--picture", type=Path, metavar="FILE.svg", help="latency over throughput")
    output.add_argument("--label", default="", metavar="TEXT", help="a title for both")


def run(args: argparse.Namespace) -> int:
    options = _options(args)
    try:
        import rich  # noqa: F401
    except ImportError:
        raise CommandError("fastserve bench needs rich: pip install 'fastserve[bench]'") from None
    from fastserve.bench.fleet import Fleet
    from fastserve.bench.run import Bench
    from fastserve.cli.bench_screen import Screen

    for path in (args.json, args.picture):
        _check_writable(path)
    # --timeout is that of the requests that are measured.
    with connect.server(args, least_timeout_s=_METADATA_TIMEOUT_S) as client:
        metadata = client.metadata(args.model, version=args.model_version)
        target, described = _target(args, metadata, client)
        screen = Screen(described, options, args)
        screen.heading()
        search: Search | None = None
        with screen, Fleet(target, args.processes) as fleet:
            bench = Bench(fleet, target, options, screen, client, args.model)
            if options.target_p99_ms:
                search, levels = bench.search()
            else:
                levels = bench.levels()
    screen.summary(levels, search)
    _write(args, options, described, levels, search)
    answered = any(level.tally.latencies.count for level in levels)
    return 0 if answered and (search is None or search.best) else connect.REFUSED


def _options(args: argparse.Namespace) -> Options:
    from fastserve.bench.run import Options

    for name, least in (("processes", 1), ("samples", 1), ("requests", 0), ("connections", 0)):
        if getattr(args, name) < least:
            raise CommandError(f"--{name}: got {getattr(args, name)}, expected {least} or more")
    for name, low, high in (
        ("duration", 0.05, 86_400.0),
        ("warmup", 0.0, 3_600.0),
        ("timeout", 0.001, 3_600.0),
    ):
        if not low <= getattr(args, name) <= high:
            raise CommandError(f"--{name}: got {getattr(args, name):g}, expected {low:g} to {high:g} seconds")
    if args.target_p99 is not None and (args.target_p99 <= 0 or args.concurrency):
        raise CommandError(
            "--target-p99: more than 0 ms, and not with --concurrency (it searches for a rate)"
        )
    is_open = bool(args.rate) or args.target_p99 is not None
    if is_open:
        levels = _levels("--rate", args.rate, whole=False) if args.rate else []
    else:
        levels = _levels(
            "--concurrency", args.concurrency or f"{args.processes}:{64 * args.processes}", whole=True
        )
        if min(levels) < args.processes:
            raise CommandError(
                f"--processes: got {args.processes}, more than the {min(levels):g} requests in flight"
            )
    return Options(
        "open" if is_open else "closed",
        levels,
        duration_s=args.duration,
        warmup_s=args.warmup,
        max_requests=args.requests,
        arrival=args.arrival,
        connections=args.connections,
        seed=args.seed,
        target_p99_ms=args.target_p99 or 0.0,
        max_error_share=args.max_errors / 100,
    )


def _levels(flag: str, text: str, *, whole: bool) -> list[float]:
    from fastserve.bench.schedule import levels

    try:
        return levels(text, whole=whole)
    except ValueError as error:
        raise CommandError(f"{flag}: {error}") from None


def _target(
    args: argparse.Namespace, metadata: ModelMetadata, client: Client
) -> tuple[Target, dict[str, Any]]:
    """What the workers get, and what is said of it."""
    from fastserve.bench.plan import Target
    from fastserve.client.address import parse
    from fastserve.client.infer_call import infer_call
    from fastserve.client.settings import Tls

    address, headers = parse(connect.url_of(args)), connect.headers_of(args)
    server = client.metadata()
    binary = any(name.startswith("binary_tensor_data") for name in server.extensions)
    payloads = []
    for sample in range(args.samples):
        tensors = inputs.tensors(metadata, args, default="random", seed_offset=sample)
        call = infer_call(
            args.model,
            tensors,
            version=args.model_version,
            outputs=None,
            id="",
            priority=None,
            parameters=None,
        )
        payloads.append(_encoded(call if binary else call.in_json(), address, headers))
    target = Target(
        address, payloads, args.timeout, Tls(args.ca, args.cert, args.key), tuple(headers.items())
    )
    described = {
        "label": args.label,
        "url": str(address),
        "is_loopback": address.is_loopback,
        "server": f"{server.name} {server.version}".strip(),
        "model": args.model,
        "version": args.model_version or ",".join(metadata.versions),
        "platform": metadata.platform,
        "inputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            for tensor in call.inputs
        ],
        "request_bytes": len(payloads[0]),
        "encoding": "protobuf" if address.protocol == "grpc" else "binary" if binary else "json",
    }
    return target, described


def _encoded(call: Any, address: Any, headers: dict[str, str]) -> bytes:
    if address.protocol == "grpc":
        from fastserve.bench.grpc_session import message_payload

        return message_payload(call.message().SerializeToString()).content
    from fastserve.client.http_wire import request_pieces

    return b"".join(request_pieces(call.http(), address, headers))


def _check_writable(path: Path | None) -> None:
    """Before minutes of load, not after."""
    if path is None:
        return
    try:
        path.open("a").close()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None


def _write(
    args: argparse.Namespace,
    options: Options,
    described: dict[str, Any],
    levels: list[Level],
    search: Search | None,
) -> None:
    from fastserve.bench import machine, report

    if args.json:
        load = {
            "mode": options.mode,
            "arrival": options.arrival if options.mode == "open" else None,
            "duration_s": options.duration_s,
            "warmup_s": options.warmup_s,
            "max_requests": options.max_requests,
            "processes": args.processes,
            "connections": options.connections or None,
            "timeout_s": args.timeout,
            "seed": args.seed,
            "samples": args.samples,
        }
        found = None
        if search is not None:
            found = {"target_p99_ms": options.target_p99_ms, "rate": search.best, "trials": search.trials}
        written = report.document(
            target=described, load=load, machine=machine.facts(), levels=levels, search=found
        )
        args.json.write_text(json.dumps(written, indent=1) + "\n")
    if args.picture:
        title = args.label or f"{args.model} on {described['server']}"
        tensors = ", ".join(f"{i['name']} {i['datatype']}{i['shape']}" for i in described["inputs"])
        loop = "closed loop" if options.mode == "closed" else f"open loop, {options.arrival} arrivals"
        args.picture.write_text(report.drawn(title, f"{described['url']} · {tensors} · {loop}", levels))
