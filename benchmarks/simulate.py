"""The scheduling policy against the rivals' rules, in virtual time: a table, a picture and all points.

python benchmarks/simulate.py                        all devices and traces, three seeds, about three minutes of one core
python benchmarks/simulate.py --seeds 1 --device resnet
python benchmarks/simulate.py --quick                does it work?

The simulator (benchmarks/simulator/, C++) links the server's own policy code; the rivals are written anew from their
published rules, each with several settings. "best rival" is the best setting of any rival at that very load: tuned for the
load by an oracle, while ours has no setting at all.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from simulator.pictures import picture  # noqa: E402

Point = dict[str, Any]
RECORDED = ROOT / "benchmarks" / "simulator" / "recorded.csv"
TIE = 0.03  # closer than that is a tie
RIVALS = ("none", "Triton", "TF Serving", "BentoML")
AVERAGED = (
    "offered_per_s",
    "served_per_s",
    "mean_ms",
    "p50_ms",
    "p99_ms",
    "mean_batch",
    "busy",
    "refused",
    "dropped",
    "high_admitted",
)


def build() -> Path:
    """The simulator needs neither OpenVINO nor a network library."""
    folder = ROOT / "build" / "simulator"
    command = ["cmake", "-S", str(ROOT / "benchmarks" / "simulator"), "-B", str(folder), "-G", "Ninja"]
    subprocess.run([*command, "-DCMAKE_BUILD_TYPE=Release"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder / "simulate"


def run(program: Path, arguments: Sequence[str], seeds: int) -> list[Point]:
    """Every point is the mean over the seeds."""
    points: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
    for seed in range(1, seeds + 1):
        command = [str(program), "--recorded", str(RECORDED), "--seed", str(seed), *arguments]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for line in output.splitlines():
            point = json.loads(line)
            key = tuple(
                point[name] for name in ("device", "instances", "trace", "load", "family", "scheduler")
            )
            points[key].append(point)
    return [mean(same) for same in points.values()]


def mean(points: Sequence[Point]) -> Point:
    averages = {name: float(f"{sum(p[name] for p in points) / len(points):.4g}") for name in AVERAGED}
    return points[0] | averages


def is_ours(point: Point) -> bool:
    return bool(point["scheduler"] == "fastserve")


def lossless(point: Point) -> bool:
    return bool(point["refused"] + point["dropped"] < 0.001)


def advantage(trace: str, ours: Point, rival: Point) -> float:
    """Above 1: ours is better. Closed loop: throughput; else p99 at that throughput."""
    if trace == "closed":
        return float(ours["served_per_s"] / rival["served_per_s"])
    return float(rival["p99_ms"] / ours["p99_ms"])


def verdict(ratios: Sequence[float]) -> str:
    worse = sum(ratio < 1 - TIE for ratio in ratios)
    better = sum(ratio > 1 + TIE for ratio in ratios)
    middle = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    return (
        f"{'> 99' if middle > 99 else f'{middle:.2f}'} ({better}+ {len(ratios) - better - worse}= {worse}-)"
    )


def table(points: Iterable[Point]) -> str:
    groups: dict[tuple[str, int, str], dict[float, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        groups[point["device"], point["instances"], point["trace"]][point["load"]].append(point)
    lines = [
        "| device | instances | trace | "
        + " | ".join(RIVALS)
        + " | best rival | mean latency, that rival | best single setting | where a rival is better |",
        "|---" * (7 + len(RIVALS)) + "|",
    ]
    for (device, instances, trace), loads in groups.items():
        if trace in ("overload", "priorities"):
            continue
        by_rival: dict[str, list[float]] = defaultdict(list)
        losses = []
        for load, here in sorted(loads.items()):
            ours = next(p for p in here if is_ours(p))
            best: tuple[float, Point] | None = None
            for rival in RIVALS:
                ratios = [
                    (advantage(trace, ours, p), p) for p in here if p["family"] == rival and lossless(p)
                ]
                if not ratios:
                    continue  # it drops requests at this load: no p99 to compare with
                least = min(ratios, key=lambda pair: pair[0])
                by_rival[rival].append(least[0])
                best = least if best is None or least[0] < best[0] else best
            if best is None:
                continue
            by_rival["best"].append(best[0])
            by_rival["mean"].append(best[1]["mean_ms"] / ours["mean_ms"])
            if best[0] < 1 - TIE:
                losses.append(f"{load:g}: {best[0]:.2f} {best[1]['scheduler']}")
        cells = [
            verdict(by_rival[rival]) if by_rival[rival] else "drops" for rival in (*RIVALS, "best", "mean")
        ]
        cells.append(single_setting(trace, loads))
        lines.append(
            f"| {device} | {instances} | {trace} | " + " | ".join(cells) + f" | {'; '.join(losses)} |"
        )
    return "\n".join(lines)


def single_setting(trace: str, loads: dict[float, list[Point]]) -> str:
    """The setting of any rival that is the best over all loads of a trace: whoever knows the trace would choose it."""
    by_setting: dict[str, list[float]] = defaultdict(list)
    for here in loads.values():
        ours = next(p for p in here if is_ours(p))
        for point in here:
            if point["family"] in RIVALS and lossless(point):
                by_setting[point["scheduler"]].append(advantage(trace, ours, point))
    whole = {name: ratios for name, ratios in by_setting.items() if len(ratios) == len(loads)}
    name = min(whole, key=lambda setting: math.prod(whole[setting]))
    return f"{verdict(whole[name])} {name}"


def fixed_table(points: Sequence[Point]) -> str:
    """What benchmarks/scenarios/sweep.py measures on the server."""
    lines = ["| device | clients | best without our choice | rows/s | ours | ours / that |", "|---" * 6 + "|"]
    groups: dict[tuple[str, float], list[Point]] = defaultdict(list)
    for point in points:
        if point["trace"] == "closed" and point["instances"] == 1:
            groups[point["device"], point["load"]].append(point)
    for (device, clients), here in groups.items():
        ours = next(p for p in here if is_ours(p))["served_per_s"]
        best = max((p for p in here if p["family"] in ("none", "fixed")), key=lambda p: p["served_per_s"])
        rate = best["served_per_s"]
        lines.append(
            f"| {device} | {clients:g} | {best['scheduler']} | {rate:.4g} | {ours:.4g} | {ours / rate:.3f} |"
        )
    return "\n".join(lines)


def overload_table(points: Iterable[Point]) -> str:
    lines = [
        "| device | trace | scheduler | load | served/s | p50 ms | p99 ms | refused | high admitted |",
        "|---" * 9 + "|",
    ]
    for p in points:
        if p["trace"] not in ("overload", "priorities"):
            continue
        lines.append(
            f"| {p['device']} | {p['trace']} | {p['scheduler']} | {p['load']:g} | {p['served_per_s']:.0f} | {p['p50_ms']:.1f} | "
            f"{p['p99_ms']:.1f} | {p['refused']:.1%} | {p['high_admitted']:.1%} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs that are averaged [3]")
    parser.add_argument("--quick", action="store_true", help="two loads, one seed")
    parser.add_argument("--variants", action="store_true", help="also our policy with one part left out each")
    parser.add_argument("--device", help="flat, resnet, mlp, bimodal or shared [all]")
    parser.add_argument(
        "--trace", help="poisson, bursty, diurnal, recorded, closed, overload or priorities [all]"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of simulator.{json,md,svg}"
    )
    options = parser.parse_args()
    arguments = [f"--{name}" for name in ("quick", "variants") if getattr(options, name)]
    for name in ("device", "trace"):
        if getattr(options, name):
            arguments += [f"--{name}", getattr(options, name)]
    points = run(build(), arguments, 1 if options.quick else options.seeds)
    text = (
        "Ours against each rival: the geometric mean over the loads of p99 (rival) / p99 (ours) at the same throughput,\n"
        "for clients in a closed loop (`closed`, by their number) of throughput (ours) / throughput (rival). Above 1: ours\n"
        f"is better. In brackets: at how many loads it is better (+), within {TIE:.0%} (=), worse (-). Each rival has its best\n"
        "setting at each load, which nobody could choose beforehand; 'best single setting': one for the trace. 'Mean\n"
        "latency': the same for the mean, against the rival that is best in p99.\n\n"
        + table(points)
        + "\n\nClients in a closed loop, one instance: ours against no batching and every fixed size (at most 20 ms of waiting\n"
        "for it). `shared`: run times swing by 10 % from one half second to the next, and the warm-up's figures by as much:\n\n"
        + fixed_table(points)
        + "\n\nOverload, open loop:\n\n"
        + overload_table(points)
        + "\n"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = 1 if options.quick else options.seeds
    columns = list(dict.fromkeys(name for point in points for name in point))
    rows = [[point.get(name) for name in columns] for point in points]
    body = {
        "what": "benchmarks/simulate.py",
        "seeds": seeds,
        "virtual_time": True,
        "columns": columns,
        "points": rows,
    }
    (options.out / "simulator.json").write_text(
        "{\n" + ",\n".join(f" {json.dumps(k)}: {dumped(v)}" for k, v in body.items()) + "\n}\n"
    )
    (options.out / "simulator.md").write_text(text)
    (options.out / "simulator.svg").write_text(picture([p for p in points if p["instances"] == 1]))
    print(text)
    return 0


def dumped(value: object) -> str:
    """A line a point: diffs stay readable."""
    if not isinstance(value, list):
        return json.dumps(value)
    return "[\n" + ",\n".join("  " + json.dumps(point, separators=(",", ":")) for point in value) + "\n ]"


if __name__ == "__main__":
    raise SystemExit(main())
