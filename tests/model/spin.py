"""Model checking of the queue and of park and wake: what is checked, and which faults must be found. All states, no bit states.

`tools/dev model` runs everything (about 15 minutes, up to 6 GB), `--short` what tools/test runs; see --help.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

# How a claim is checked: the define of the model, what the verifier is compiled with, how it is run.
# NFAIR: words of the fairness counters; 3 are enough for 46 processes.
MODES = {
    "SAFETY": (["-DSAFETY"], ["-DSAFETY", "-DNOCLAIM"], []),
    "LIVENESS": (["-DLIVENESS"], ["-DNFAIR=3"], ["-a", "-f"]),
    "NP": (["-DNP"], ["-DNP", "-DNFAIR=3"], ["-l", "-f"]),
}
DEPTH = 1_000_000
LONG_DEPTH = 40_000_000


@dataclasses.dataclass(frozen=True)
class Check:
    model: str
    mode: str
    defines: str = ""  # DEVICE=1 CALLERS=2
    short: bool = True  # also in tools/test
    mutant: int = 0  # 0: no fault, and none may be found
    what: str = ""  # the fault

    @property
    def name(self) -> str:
        parts = [self.model, self.mode.lower(), *self.defines.lower().replace("=", "-").split()]
        if self.mutant:
            parts.append(f"mutant-{self.mutant}-{self.what.replace(' ', '-')}")
        return "_".join(parts)


@dataclasses.dataclass(frozen=True)
class Outcome:
    errors: int
    states: int
    megabytes: float
    seconds: float  # of the search
    text: str

    @property
    def complete(self) -> bool:
        return "Search not completed" not in self.text and "max search depth too small" not in self.text


CHECKS = [
    Check("intake", "SAFETY"),
    Check("intake", "LIVENESS"),
    Check("request_queue", "SAFETY", "STEPS=1"),
    Check("request_queue", "SAFETY", "INSTANCES=1 DEVICE=1 CALLERS=1 COMPANY=1"),
    Check("request_queue", "LIVENESS"),
    Check("request_queue", "NP"),
    Check("completion_queue", "SAFETY", "FUTEX=0"),
    Check("completion_queue", "SAFETY", "FUTEX=0 DESTROY"),
    Check("completion_queue", "SAFETY", "FUTEX=1"),
    Check("completion_queue", "SAFETY", "FUTEX=1 DESTROY"),
    Check("completion_queue", "NP", "FUTEX=1"),
    Check("request_queue", "SAFETY", "DEVICE=1", short=False),
    Check("request_queue", "SAFETY", "CALLERS=1", short=False),
    Check("request_queue", "SAFETY", "CALLERS=2", short=False),
    Check("request_queue", "SAFETY", "DEVICE=1 HANG=1", short=False),
    Check("request_queue", "SAFETY", "CALLERS=1 HANG=1", short=False),
    Check("request_queue", "SAFETY", "COMPANY=1 CAPACITY=3", short=False),
    Check("request_queue", "SAFETY", "INSTANCES=1 DEVICE=1 CALLERS=2 COMPANY=1", short=False),
    Check("request_queue", "LIVENESS", "INSTANCES=1 DEVICE=1 CALLERS=1", short=False),
    Check("request_queue", "NP", "INSTANCES=1 DEVICE=1 CALLERS=1", short=False),
    Check("completion_queue", "LIVENESS", "FUTEX=0", short=False),
    Check("completion_queue", "LIVENESS", "FUTEX=1", short=False),
    Check("completion_queue", "NP", "FUTEX=0", short=False),
]


def mutant(
    model: str, number: int, what: str, mode: str = "SAFETY", defines: str = "", short: bool = True
) -> Check:
    return Check(model, mode, defines, short, number, what)


MUTANTS = [
    mutant("intake", 1, "push stores instead of swapping"),
    mutant("intake", 2, "pull without the token", short=False),
    mutant("intake", 3, "take loads and stores instead of exchanging"),
    mutant("intake", 4, "take does not reverse"),
    mutant("intake", 5, "link read after the request was let go", short=False),
    mutant("intake", 6, "taken requests are not counted", short=False),
    mutant("request_queue", 1, "ring looks before it raises the epoch", defines="STEPS=1"),
    mutant("request_queue", 2, "sleeper counts itself too late", defines="STEPS=1", short=False),
    mutant("request_queue", 3, "sleeps without comparing the epoch", defines="STEPS=1", short=False),
    mutant("request_queue", 4, "ring before push"),
    mutant("request_queue", 7, "no alarm for those that wait for company", defines="COMPANY=1", short=False),
    mutant(
        "request_queue", 8, "caller leaves the clock unwatched", defines="INSTANCES=1 CALLERS=1 COMPANY=1"
    ),
    mutant("request_queue", 9, "idle instances ring each other", mode="NP"),
    mutant("request_queue", 10, "ring not passed on to those that are left", defines="DEVICE=1"),
    mutant("request_queue", 11, "claim given back without a ring", defines="INSTANCES=1 CALLERS=1"),
    mutant("request_queue", 12, "ticket after the look"),
    mutant("request_queue", 13, "claimed instance keeps the ring", defines="CALLERS=1 HANG=1"),
    mutant(
        "request_queue", 14, "full instance keeps the ring", defines="DEVICE=1 CALLERS=1 HANG=1", short=False
    ),
    mutant("request_queue", 15, "batch finishes without a ring", defines="DEVICE=1"),
    mutant("request_queue", 17, "no ring when every instance is busy", defines="CALLERS=2", short=False),
    mutant("completion_queue", 4, "owner looked at before the push"),
    mutant("completion_queue", 5, "everybody counts a wake", defines="DESTROY", short=False),
    mutant("completion_queue", 6, "wake counted before its end", defines="DESTROY"),
    mutant("completion_queue", 8, "write counted as read unseen", mode="NP"),
    mutant("completion_queue", 9, "owner looks before it asks to be woken"),
    mutant("completion_queue", 10, "sleeps after the last round", short=False),
    mutant("completion_queue", 11, "owner's ticket after the look", defines="FUTEX=1"),
    mutant("completion_queue", 12, "destroyed under a deliverer", defines="DESTROY"),
]


def missing_tools() -> list[str]:
    return [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]


def _call(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{text}")
    return text


def run(check: Check) -> Outcome:
    """Makes a verifier of the model in a folder of its own and lets it search every state."""
    of_model, of_verifier, arguments = MODES[check.mode]
    defines = [f"-D{each}" for each in check.defines.split()]
    if check.mutant:
        defines.append(f"-DMUTANT={check.mutant}")
    with tempfile.TemporaryDirectory(prefix="fastserve-model-") as name:
        folder = Path(name)
        for source in HERE.glob("*.pml"):
            shutil.copy(source, folder)
        said = _call(["spin", *of_model, *defines, "-a", f"{check.model}.pml"], folder)
        if "rror" in said:
            raise RuntimeError(f"spin: {said}")
        # A fault is found after few states: there the compiler takes longer than the search.
        optimised = "-O0" if check.mutant else "-O1"
        _call(["gcc", optimised, "-w", "-DCOLLAPSE", *of_verifier, "-o", "pan", "pan.c"], folder)
        began = time.monotonic()
        # -E: threads asleep are no fault by themselves, the models say what may wait then.
        depth = DEPTH if check.short or check.mutant else LONG_DEPTH
        text = _call(["./pan", f"-m{depth}", "-E", *arguments], folder)
        return _read(text, time.monotonic() - began)


def _read(text: str, seconds: float) -> Outcome:
    errors = re.search(r"errors: (\d+)", text)
    states = re.search(r"(\d+(?:\.\d+)?(?:e\+\d+)?) states, stored", text)
    memory = re.search(r"([\d.]+)\s+total actual memory usage", text)
    if errors is None or states is None or "out of memory" in text:
        raise RuntimeError(f"no verdict:\n{text}")
    return Outcome(int(errors[1]), int(float(states[1])), float(memory[1]) if memory else 0.0, seconds, text)


def verdict(check: Check, outcome: Outcome) -> str:
    """Empty: as it should be."""
    if check.mutant:
        return "" if outcome.errors else "the fault was not found"
    if outcome.errors:
        return f"a fault was found:\n{outcome.text}"
    return "" if outcome.complete else "not every state was seen: raise the depth"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Checks the SPIN models of the queue, and that each seeded fault is found."
    )
    parser.add_argument("--short", action="store_true", help="only what tools/test runs")
    parser.add_argument("--jobs", type=int, default=1, help="at a time; the long ones want up to 6 GB each")
    parser.add_argument("words", nargs="*", help="only checks with one of these words in their name")
    options = parser.parse_args()
    if missing := missing_tools():
        print(f"missing: {' '.join(missing)} (apt-get install spin gcc)", file=sys.stderr)
        return 2
    chosen = [check for check in CHECKS + MUTANTS if check.short or not options.short]
    chosen = [
        check for check in chosen if not options.words or any(word in check.name for word in options.words)
    ]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for check, outcome in zip(chosen, pool.map(run, chosen), strict=True):
            wrong = verdict(check, outcome)
            failed += bool(wrong)
            said = wrong or ("found" if check.mutant else "holds")
            print(
                f"{check.name}: {said}, {outcome.states} states, {outcome.megabytes:.0f} MB, {outcome.seconds:.1f} s",
                flush=True,
            )
    print(f"{len(chosen) - failed} as they should be, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
