"""The body of tools/test: lints, builds, tests, then a table and the counts. `tools/test --help` explains it.

Every step is one function that returns its counts; a step that fails without counts of its own (a build, a
lint) counts as one failed, so that the last line never says "0 failed" beside an exit code that is not zero.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "logs"
BIN = Path(sys.executable).parent

TEST_TIMEOUT_S = 300
CPUS = os.cpu_count() or 1
# Of pytest, beside each other: half of the time of a test that talks to a server is waiting.
PYTEST_WORKERS = min(2 * CPUS, 8)
# The layers with threads of their own or shared between threads. The preset leaves OpenVINO out, as it is not
# instrumented.
TSAN_TESTS = (
    "base",
    "queue",
    "memory",
    "batch",
    "backend",
    "cuda",
    "cuda_lane",
    "sched",
    "model",
    "engine",
    "frontend",
)

GTEST_LINES = {
    "passed": re.compile(r"^\[  PASSED  \] (\d+) tests?\.", re.M),
    "failed": re.compile(r"^\[  FAILED  \] (\d+) tests?, listed below", re.M),
    "skipped": re.compile(r"^\[  SKIPPED \] (\d+) tests?, listed below", re.M),
}


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self) -> str:
        text = f"{self.passed} passed, {self.failed} failed"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


class StepFailed(Exception):
    """A step that could not produce counts; the text is the last of its output."""


def gtest_counts(output: str, exit_code: int) -> Counts:
    """The counts in gtest's output. A crash leaves no summary: that is one failed on top of nothing."""
    found = {}
    for name, pattern in GTEST_LINES.items():
        match = pattern.search(output)
        found[name] = int(match[1]) if match else 0
    counts = Counts(**found)
    if exit_code != 0 and counts.failed == 0:
        counts.failed = 1
    return counts


def junit_counts(report: Path) -> Counts:
    """The counts in a JUnit XML report of pytest; an error in a fixture counts as failed."""
    counts = Counts()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, failures, errors, skipped = (
            int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")
        )
        counts.add(Counts(total - failures - errors - skipped, failures + errors, skipped))
    return counts


def run(log: str, command: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in build/logs/<log>; StepFailed with the end of it when it fails."""
    path = LOGS / log
    with path.open("a") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        done = subprocess.run(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
    if done.returncode != 0:
        tail = path.read_text(errors="replace").splitlines()[-60:]
        raise StepFailed(
            "\n".join([*tail, f"exit code {done.returncode}; all of it: {path.relative_to(ROOT)}"])
        )


def build(preset: str, targets: Sequence[str] = ()) -> None:
    log = f"{preset}-build.log"
    run(log, ["cmake", "--preset", preset])
    wanted = ["--target", *targets] if targets else []
    run(log, ["cmake", "--build", "--preset", preset, *wanted])


def ctest_commands(preset: str) -> dict[str, list[str]]:
    """Name -> command line of every test of a configured preset."""
    shown = subprocess.run(
        ["ctest", "--show-only=json-v1"],
        cwd=ROOT / "build" / preset,
        capture_output=True,
        text=True,
        check=True,
    )
    return {test["name"]: test.get("command", [test["name"]]) for test in json.loads(shown.stdout)["tests"]}


def run_gtests(
    preset: str, only: Sequence[str] = (), env: dict[str, str] | None = None, at_once: int = 1
) -> Counts:
    """Runs the test executables of a built preset, `at_once` of them beside each other."""
    tests = [(name, line) for name, line in ctest_commands(preset).items() if not only or name in only]
    total = Counts()
    with ThreadPoolExecutor(at_once) as pool:
        for counts in pool.map(lambda test: run_gtest(preset, test[0], test[1], env), tests):
            total.add(counts)
    return total


def run_gtest(preset: str, name: str, command: Sequence[str], env: dict[str, str] | None) -> Counts:
    path = LOGS / f"{preset}-{name}.log"
    try:
        done = subprocess.run(
            [*without_address_randomisation(preset), *command],
            cwd=ROOT / "build" / preset,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TEST_TIMEOUT_S,
            env={**os.environ, **(env or {})},
        )
        output, exit_code = done.stdout.decode(errors="replace"), done.returncode
    except subprocess.TimeoutExpired as expired:
        output = (expired.stdout or b"").decode(errors="replace") + f"\nstopped after {TEST_TIMEOUT_S} s"
        exit_code = 1
    path.write_text(output)
    counts = gtest_counts(output, exit_code)
    if counts.failed:
        print("\n".join(failure_lines(output)))
        print(f"{preset}/{name}: {counts}, exit code {exit_code}; all of it: {path.relative_to(ROOT)}")
    return counts


def failure_lines(output: str, limit: int = 80) -> list[str]:
    """What a reader of a failed gtest run needs: everything but the lines of tests that passed."""
    boring = re.compile(r"^\[( RUN      |       OK |----------|==========)\]|^$")
    return [line for line in output.splitlines() if not boring.match(line)][-limit:]


def without_address_randomisation(preset: str) -> list[str]:
    """For gcc 12's ThreadSanitizer, which refuses kernels with 32 random address bits."""
    if preset != "tsan":
        return []
    prefix = ["setarch", os.uname().machine, "-R"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


# --- the steps -----------------------------------------------------------------------------------------


def cxx_sources() -> list[str]:
    folders = (ROOT / name for name in ("csrc", "tests", "benchmarks"))
    return sorted(
        str(path) for folder in folders for path in folder.rglob("*") if path.suffix in {".cc", ".h"}
    )


def lint_ruff() -> Counts:
    run("ruff.log", [str(BIN / "ruff"), "check", "."])
    run("ruff.log", [str(BIN / "ruff"), "format", "--check", "."])
    return Counts()


def lint_mypy() -> Counts:
    run("mypy.log", [str(BIN / "mypy")])
    return Counts()


def lint_layers() -> Counts:
    run("layers.log", [sys.executable, "tools/check_layers.py"])
    run("layers.log", [str(BIN / "lint-imports")], env={"PYTHONPATH": str(ROOT / "python")})
    return Counts()


def lint_clang_format() -> Counts:
    run("clang-format.log", ["clang-format", "--dry-run", "-Werror", *cxx_sources()])
    return Counts()


def lint_clang_tidy() -> Counts:
    run("release-build.log", ["cmake", "--preset", "release"])
    run("clang-tidy.log", [sys.executable, "tools/clang_tidy.py", "build/release"])
    return Counts()


def test_cpp() -> Counts:
    build("release")
    return run_gtests("release")


def test_asan() -> Counts:
    build("asan")
    options = {
        # allocator_may_return_null: OpenVINO believes a corrupt file's sizes and copes with the refusal.
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:check_initialization_order=1:strict_init_order=1"
        ":allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LSAN_OPTIONS": f"suppressions={ROOT / 'tools' / 'lsan.supp'}:print_suppressions=0",
        # OpenVINO's TBB opens a library with RTLD_DEEPBIND, at which AddressSanitizer ends the process.
        "TBB_ENABLE_SANITIZERS": "1",
        # 13 datatypes through the same code, at 1.5 s each under ASan: the release run has them.
        "GTEST_FILTER": "-All/OpenVinoTypes.*",
    }
    return run_gtests("asan", env=options, at_once=CPUS)


def test_tsan() -> Counts:
    run("tsan-build.log", ["cmake", "--preset", "tsan"])
    present = [name for name in (f"test_{layer}" for layer in TSAN_TESTS) if name in ctest_commands("tsan")]
    if not present:
        return Counts()
    build("tsan", present)
    options = {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}
    return run_gtests("tsan", present, env=options, at_once=CPUS)


def test_engine_only() -> Counts:
    build("engine-only")
    return run_gtests("engine-only", at_once=CPUS)


def test_python(arguments: Sequence[str]) -> Counts:
    # The load generator plays the 100,000 requests of tests/integration/test_echo.py, which is skipped without it.
    run("loadgen-build.log", ["cmake", "-S", "benchmarks", "-B", "build/bench", "-G", "Ninja"])
    run("loadgen-build.log", ["cmake", "--build", "build/bench", "--target", "loadgen"])
    total = Counts()
    for report, words in pytest_runs(arguments):
        total.add(run_pytest(ROOT / "build" / report, words))
    return total


def pytest_runs(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """(report, words) of every pytest to run: all tests beside each other, file by file, then one by one those that measure
    time. Arguments of the user's own: one run, in one process unless they say otherwise."""
    if not arguments:
        beside = ["-n", str(PYTEST_WORKERS), "--dist", "loadfile", "--no-loadscope-reorder"]
        return [
            ("pytest.xml", ["tests", *beside, "-m", "not alone"]),
            ("pytest-alone.xml", ["tests", "-m", "alone"]),
        ]
    named = any((ROOT / argument.split("::")[0]).exists() for argument in arguments)
    return [("pytest.xml", [*([] if named else ["tests"]), *arguments])]


def run_pytest(report: Path, words: Sequence[str]) -> Counts:
    report.unlink(missing_ok=True)
    # Compiled tests and modules are kept: every worker and every server that a test starts reads them.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--junitxml={report}", "-q", *words], cwd=ROOT, env=env
    )
    if not report.exists():
        raise StepFailed(f"pytest wrote no report, exit code {done.returncode}")
    counts = junit_counts(report)
    if done.returncode not in (0, 5) and counts.failed == 0:  # 5: nothing was collected
        counts.failed = 1
    return counts


@dataclass(frozen=True)
class Step:
    part: str
    name: str
    action: Callable[[], Counts]
    fast: bool = True  # in --fast too


def steps(pytest_arguments: Sequence[str]) -> list[Step]:
    return [
        Step("lint", "ruff", lint_ruff),
        Step("lint", "mypy", lint_mypy),
        Step("lint", "layers", lint_layers),
        Step("lint", "clang-format", lint_clang_format),
        Step("cpp", "C++ release", test_cpp),
        Step("lint", "clang-tidy", lint_clang_tidy, fast=False),
        Step("python", "Python", lambda: test_python(pytest_arguments)),
        Step("asan", "C++ ASan+UBSan", test_asan, fast=False),
        Step("tsan", "C++ TSan", test_tsan, fast=False),
        Step("engine", "C++ engine-only", test_engine_only, fast=False),
    ]


@dataclass(frozen=True)
class Outcome:
    step: Step
    counts: Counts
    seconds: float
    ok: bool


def run_step(step: Step) -> Outcome:
    print(f"→ {step.name}", flush=True)
    started = time.monotonic()
    try:
        counts = step.action()
    except (StepFailed, subprocess.CalledProcessError) as failure:
        print(failure)
        counts = Counts(failed=1)
    return Outcome(step, counts, time.monotonic() - started, counts.failed == 0)


def print_table(outcomes: Sequence[Outcome]) -> None:
    print(f"\n{'step':<18} {'time':>8} {'passed':>8} {'failed':>8} {'skipped':>8}   result")
    for outcome in outcomes:
        counts = outcome.counts
        print(
            f"{outcome.step.name:<18} {outcome.seconds:>6.1f} s {counts.passed:>8} {counts.failed:>8} "
            f"{counts.skipped:>8}   {'ok' if outcome.ok else 'FAILED'}"
        )
    print(f"{'total':<18} {sum(outcome.seconds for outcome in outcomes):>6.1f} s\n")


def main(argv: Sequence[str]) -> int:
    parts = sorted({step.part for step in steps(())})
    parser = argparse.ArgumentParser(prog="tools/test", description="See tools/test --help.")
    parser.add_argument("--only", metavar="PART[,PART]", help=f"of {', '.join(parts)}")
    parser.add_argument("--fast", action="store_true", help="without sanitizers, engine-only and clang-tidy")
    parser.add_argument("pytest_arguments", nargs="*", metavar="-- PYTEST_ARGUMENTS")
    arguments = parser.parse_args(argv)
    only = arguments.only.split(",") if arguments.only else parts
    unknown = sorted(set(only) - set(parts))
    if unknown:
        parser.error(f"--only: unknown {', '.join(unknown)}; there are {', '.join(parts)}")

    LOGS.mkdir(parents=True, exist_ok=True)
    chosen = [step for step in steps(arguments.pytest_arguments) if step.part in only]
    if arguments.fast:
        chosen = [step for step in chosen if step.fast]
    for log in LOGS.glob("*.log"):
        if not log.name.startswith(("apt", "pip", "package", "venv")):
            log.unlink()
    outcomes = [run_step(step) for step in chosen]
    total = Counts()
    for outcome in outcomes:
        total.add(outcome.counts)
    print_table(outcomes)
    print(total, flush=True)
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
