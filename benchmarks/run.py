"""Runs the end-to-end benchmarks: interleaved, pinned, with the server's CPU time per request. See README.md here.

python benchmarks/run.py                      all scenarios, about 35 minutes
python benchmarks/run.py small embed          only these
python benchmarks/run.py --quick              two short rounds: does it work?
python benchmarks/run.py small --serve-args "--io-threads 0" --out build/bench-uvloop
PYTHONPATH=TREE python benchmarks/run.py clients --fastserve "python -m fastserve.cli"     a tree that is not installed
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from harness import machine, report  # noqa: E402
from harness.bench import TOOLS, Bench  # noqa: E402
from harness.processes import BenchError  # noqa: E402
from scenarios import PARTS, SCENARIOS  # noqa: E402


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    named = f"of {', '.join(SCENARIOS)}, all if none is given; or of {', '.join(PARTS)}, parts of them"
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=named)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds [5]")
    parser.add_argument("--seconds", type=float, default=3.0, help="window of one block [3]")
    parser.add_argument("--warmup", type=float, default=0.5, help="before each window, not counted [0.5]")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s, 10,000 echo requests")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "build" / "bench-results",
        help="folder of the JSON [build/bench-results]",
    )
    parser.add_argument("--server-cpus", default="0", help="CPUs of the servers, such as 0 or 0,2 [0]")
    parser.add_argument("--client-cpu", type=int, default=1, help="CPU of the load client [1]")
    parser.add_argument(
        "--streams",
        type=int,
        default=1,
        help="OpenVINO streams of ResNet-50, both sides; fastserve's own default is 1 [1]",
    )
    parser.add_argument(
        "--precision",
        default=machine.native_precision(),
        help="of ResNet-50, both sides [this CPU's: %(default)s]",
    )
    parser.add_argument("--echo-requests", type=int, default=100_000)
    parser.add_argument(
        "--fastserve",
        default=str(ROOT / ".venv" / "bin" / "fastserve"),
        metavar="COMMAND",
        help='the command to measure, such as "python -m fastserve.cli" of a tree on PYTHONPATH [.venv/bin/fastserve]',
    )
    parser.add_argument("--serve-args", default="", help="more arguments for `fastserve serve`")
    parser.add_argument(
        "--tools", type=Path, default=ROOT / "build" / "bench" / "bin", help="folder of the C++ tools"
    )
    parser.add_argument("--no-build", action="store_true", help="use the C++ tools as they are")
    args = parser.parse_args()
    known = SCENARIOS | PARTS
    unknown = [name for name in args.scenarios if name not in known]
    if unknown:
        parser.error(f"unknown scenario {unknown[0]!r}: want one of {', '.join(known)}")
    if args.quick:
        args.rounds, args.seconds, args.warmup = 2, 1.0, 0.2
        args.echo_requests = min(args.echo_requests, 10_000)
    return args


def build(tools: Path) -> None:
    """The C++ tools, stand-alone; a second time it costs nothing. Only for the default folder."""
    folder = tools.parent
    commands: list[list[str | Path]] = [
        ["cmake", "-S", ROOT / "benchmarks", "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"],
        ["ninja", "-C", folder, "-j2", *TOOLS],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-3000:]}")


def run_scenario(name: str, bench: Bench, args: argparse.Namespace, context: dict[str, Any]) -> None:
    print(f"{name}:", file=sys.stderr)
    bench.remarks = []
    started, before, own_before = time.monotonic(), machine.Noise.now(), machine.children_cpu_s()
    result = (SCENARIOS | PARTS)[name](bench)
    noise = machine.Noise.now().since(before)
    others_s = max(0.0, noise.busy_s - (machine.children_cpu_s() - own_before))
    took_s = time.monotonic() - started
    share = 100 / (took_s * (os.cpu_count() or 1))
    result.remarks += bench.remarks
    result.remarks.append(
        f"machine meanwhile: {others_s * share:.0f} % used by others, {noise.steal_s * share:.1f} % stolen"
    )
    path = report.write(args.out, result, context)
    print(result.markdown(), flush=True)
    print(f"  {path}", file=sys.stderr)


def _allow_files() -> None:
    """As many open files as the machine lets us have, servers and clients (our children) included."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # unwinds the stacks that end the servers


def main() -> int:
    args = parse()
    signal.signal(signal.SIGTERM, _end)
    _allow_files()
    bench = Bench(
        tools=args.tools,
        fastserve=shlex.split(args.fastserve),
        models=ROOT / "build" / "bench-models",
        rounds=args.rounds,
        seconds=args.seconds,
        warmup_s=args.warmup,
        server_cpus=[int(cpu) for cpu in args.server_cpus.split(",")],
        client_cpu=args.client_cpu,
        serve_args=shlex.split(args.serve_args),
        echo_requests=args.echo_requests,
        precision=args.precision,
        streams=args.streams,
    )
    missing = {*bench.server_cpus, bench.client_cpu} - set(bench.all_cpus)
    if missing:
        print(f"error: no CPU {min(missing)} here: this machine lends {bench.all_cpus}", file=sys.stderr)
        return 2
    failed = 0
    try:
        if not args.no_build:
            build(args.tools)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    for name in args.scenarios or SCENARIOS:
        try:
            run_scenario(name, bench, args, {"machine": machine.describe(), "options": options})
        except BenchError as error:
            failed = 1
            print(f"error: {name}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
