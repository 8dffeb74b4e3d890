"""tools/gpu-check without a GPU: what it makes of rows that pass, fail, crash and hang (stand-ins for gpu_rows)."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!{python}
import json, sys, time
row = sys.argv[1]
if row == "overlap":
    sys.exit("CUDA error")
if row == "dev_shm":
    time.sleep(60)
broken = ["both directions at once"] if row == "bandwidth" else []
print(json.dumps({{"row": row, "status": "failed" if broken else "passed", "broken": broken, "figures": {{"gb_s": 50.5}}}}))
sys.exit(bool(broken))
"""


def check(*words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "gpu-check"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    folder = tmp_path / "build"
    folder.mkdir()
    program = folder / "gpu_rows"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return folder


def run(stand_in: Path, *rows: str, budget: int = 480) -> tuple[int, dict[str, Any]]:
    out = stand_in.parent / "out"
    words = [word for row in rows for word in ("--only", row)]
    where = ["--simulated", str(stand_in), "--build-dir", str(stand_in)]
    done = check(str(out), *where, *words, "--budget", str(budget))
    assert "SIMULATED CUDA DRIVER" in done.stdout, done.stderr
    return done.returncode, json.loads((out / "gpu-check.json").read_text())


def test_without_a_gpu_it_says_so_and_builds_nothing(tmp_path: Path) -> None:
    done = check(str(tmp_path / "out"))
    if done.returncode != 77 and "no GPU" not in done.stderr:
        pytest.skip("there is a GPU")
    assert done.returncode == 77
    assert "gpu-check: no GPU: no CUDA driver" in done.stderr
    assert not (tmp_path / "out").exists()


def test_results_say_what_passed_and_that_they_are_simulated(stand_in: Path) -> None:
    code, results = run(stand_in, "driver")
    assert code == 0
    assert results["simulated"] is True
    assert "no figure means anything" in results["what"]
    (row,) = results["rows"]
    assert (row["row"], row["status"], row["figures"]) == ("driver", "passed", {"gb_s": 50.5})
    assert row["floor"] == "every function of the table, a primary context"


def test_a_gate_that_fails_and_a_row_that_crashes_make_it_fail_and_the_rest_runs(stand_in: Path) -> None:
    code, results = run(stand_in, "bandwidth", "overlap", "driver")
    assert code == 1
    assert [(row["row"], row["status"]) for row in results["rows"]] == [
        ("bandwidth", "failed"),
        ("overlap", "error"),
        ("driver", "passed"),
    ]
    assert results["rows"][1]["reason"] == "exit code 1: CUDA error"


def test_a_row_that_hangs_is_ended_and_what_ran_before_is_kept(stand_in: Path) -> None:
    code, results = run(stand_in, "driver", "dev_shm", "ipc", budget=7)
    assert code == 1
    driver, hung, late = results["rows"]
    assert driver["status"] == "passed"
    assert hung["status"] == "error"
    assert "took longer than" in hung["reason"]
    assert (late["status"], late["reason"]) == ("skipped", "the budget of 7 s is used up")


def test_rows_of_pytorch_are_skipped_on_the_simulated_driver(stand_in: Path) -> None:
    code, results = run(stand_in, "resnet50", "memcheck")
    assert code == 0
    assert {row["reason"] for row in results["rows"]} == {"not on the simulated driver"}


def test_simulated_results_are_not_kept_as_benchmarks(stand_in: Path) -> None:
    out = ROOT / "benchmarks" / "results" / "simulated"
    done = check(str(out), "--simulated", str(stand_in), "--build-dir", str(stand_in))
    assert done.returncode == 2
    assert "not kept in benchmarks/results" in done.stderr
    assert not out.exists()


def test_every_row_of_the_list_is_one_that_a_program_knows() -> None:
    names = [line.split()[0] for line in check("--list").stdout.splitlines()]
    assert len(names) == len(set(names))
    main = (ROOT / "benchmarks" / "gpu" / "main.cc").read_text()
    python = (ROOT / "benchmarks" / "gpu" / "torch_rows.py").read_text()
    for name in names:
        assert name in {"idle", "memcheck"} or f'{{"{name}", ' in main or f"def {name}(" in python, name


def test_a_pack_has_what_the_build_reads_and_no_binary(tmp_path: Path) -> None:
    assert check("--pack", str(tmp_path)).returncode == 0
    with tarfile.open(tmp_path / "fastserve-gpu-check.tar.gz") as archive:
        names = set(archive.getnames())
    for path in ("CMakePresets.json", "csrc/backend/cuda.h", "benchmarks/gpu/kernels.cu", "tools/gpu-check"):
        assert f"fastserve/{path}" in names
    assert not [name for name in names if name.endswith((".so", ".pyc"))]


@pytest.mark.skipif(
    not (ROOT / "build/engine-only/benchmarks/gpu/gpu_rows").exists(), reason="build/engine-only is not built"
)
def test_the_cpp_rows_run_on_the_simulated_driver(tmp_path: Path) -> None:
    folder = ROOT / "build" / "engine-only"
    words = ["--simulated", str(folder / "simulated_cuda"), "--build-dir", str(folder), "--short"]
    done = check(str(tmp_path), *words, timeout=240)
    results = json.loads((tmp_path / "gpu-check.json").read_text())
    ran = {row["row"]: row["status"] for row in results["rows"] if row["status"] != "skipped"}
    assert set(ran.values()) == {"passed"}, done.stdout
    assert len(ran) == 11
    assert done.returncode == 0
