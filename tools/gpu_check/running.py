"""One row in a process of its own: what it prints is its result, and nothing that it does to the device reaches the next one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.gpu_check.build import ROOT, Built
from tools.gpu_check.rows import Row


class Runner:
    def __init__(self, built: Built, *, simulated: Path | None, short: bool) -> None:
        self._built = built
        self._simulated = simulated
        self._short = ["--short"] if short else []
        self._environment = dict(os.environ)
        if simulated is not None:
            self._environment["LD_LIBRARY_PATH"] = str(simulated)
        if built.package is not None:
            self._environment["PYTHONPATH"] = str(built.package)

    def run(self, row: Row, limit_s: float) -> dict[str, Any]:
        """The row's result, whatever happens."""
        start = time.monotonic()
        obstacle = self._obstacle(row)
        if obstacle:
            return {"row": row.name, "status": "skipped", "reason": obstacle}
        here: dict[str, Callable[[Row, float], dict[str, Any]]] = {
            "idle": self._idle,
            "memcheck": self._memcheck,
        }
        result = (
            here[row.name](row, limit_s)
            if row.runs == "here"
            else self._process(row, self._words(row), limit_s)
        )
        return {**result, "seconds": round(time.monotonic() - start, 2)}

    def _obstacle(self, row: Row) -> str:
        """Why the row cannot run here; "" = nothing."""
        if self._simulated is not None and row.runs != "gpu_rows":
            return "not on the simulated driver"
        for need in row.needs:
            if need in self._built.missing:
                return self._built.missing[need]
            if need in {"torch", "tensorrt_rtx"} and importlib.util.find_spec(need) is None:
                return f"the Python package {need} is not installed"
            if need == "compute-sanitizer" and _sanitizer() is None:
                return "compute-sanitizer is not installed"
        return ""

    def _words(self, row: Row) -> list[str]:
        if row.runs == "gpu_rows":
            return [*self._rows_words(row.name), *self._short]
        script = str(ROOT / "benchmarks" / "gpu" / "torch_rows.py")
        return [sys.executable, script, row.name, "--gpu-rows", str(self._built.gpu_rows), *self._short]

    def _rows_words(self, name: str) -> list[str]:
        return [str(self._built.gpu_rows), name, "--kernels", str(self._built.kernels or "")]

    def _process(self, row: Row, words: list[str], limit_s: float) -> dict[str, Any]:
        code, out, err = _finish(words, self._environment, limit_s)
        try:
            found = json.loads(out.strip().rpartition("\n")[2])
        except ValueError:
            found = None
        if isinstance(found, dict) and code in {0, 1}:
            return found
        reason = f"took longer than {limit_s:.0f} s" if code is None else f"exit code {code}"
        return {"row": row.name, "status": "error", "reason": f"{reason}: {_end(err or out)}"}

    def _idle(self, row: Row, limit_s: float) -> dict[str, Any]:
        """The state of the GPU before anything of ours runs."""
        names = (
            "name",
            "uuid",
            "driver_version",
            "utilization.gpu",
            "memory.used",
            "pcie.link.gen.max",
            "clocks.sm",
        )
        words = ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"]
        code, out, err = _finish(words, self._environment, limit_s)
        if code != 0:
            return {"row": row.name, "status": "skipped", "reason": f"nvidia-smi: {_end(err or out)}"}
        figures = dict(zip(names, (text.strip() for text in out.splitlines()[0].split(",")), strict=False))
        busy = not figures.get("utilization.gpu", "0").isdigit() or int(figures["utilization.gpu"]) > 5
        broken = [row.floor] if busy else []
        status = "failed" if broken else "passed"
        return {
            "row": row.name,
            "status": status,
            "floors": [row.floor],
            "broken": broken,
            "figures": figures,
        }

    def _memcheck(self, row: Row, limit_s: float) -> dict[str, Any]:
        sanitizer = [
            _sanitizer() or "",
            "--tool",
            "memcheck",
            "--error-exitcode",
            "99",
            "--target-processes",
            "all",
        ]
        code, out, err = _finish(
            [*sanitizer, *self._rows_words("added_latency"), "--short"], self._environment, limit_s
        )
        said = "\n".join(line for line in out.splitlines() if "=====" in line)
        if "Device not supported" in out + err:
            return {"row": row.name, "status": "skipped", "reason": "compute-sanitizer: Device not supported"}
        # The latency gate may break under the sanitizer; what counts is its own word.
        broken = [] if "ERROR SUMMARY: 0 errors" in said else [row.floor]
        figures = {"exit_code": code, "summary": _end(said)}
        status = "failed" if broken else "passed"
        return {
            "row": row.name,
            "status": status,
            "floors": [row.floor],
            "broken": broken,
            "figures": figures,
        }


def _finish(words: list[str], environment: dict[str, str], limit_s: float) -> tuple[int | None, str, str]:
    """(exit code, stdout, stderr); None: it was ended, with all that it started."""
    try:
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return 127, "", f"{words[0]}: {error.strerror}"
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return None, out, err
    return process.returncode, out, err


def _sanitizer() -> str | None:
    usual = "/usr/local/cuda/bin/compute-sanitizer"
    return shutil.which("compute-sanitizer") or (usual if Path(usual).exists() else None)


def _end(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:])[-600:]
