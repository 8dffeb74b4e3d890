"""Loaded and unloaded again and again, a model leaves nothing behind (at length: benchmarks/scenarios/reloads.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tritonclient.http as http
from model_repository import write_mlp
from process_figures import Figures

CYCLES = 12
SETTLED = 4
MB = 1 << 20


@dataclass(frozen=True)
class Held:
    rss_bytes: int
    descriptors: int
    threads: int
    mappings: int

    @classmethod
    def by(cls, pid: int) -> Held:
        figures, folder = Figures.of(pid), Path(f"/proc/{pid}")
        threads = sum(1 for _ in (folder / "task").iterdir())
        return cls(figures.rss_bytes, figures.descriptors, threads, (folder / "maps").read_text().count("\n"))


def test_a_cycle_gives_back_what_it_took(start: Any, tmp_path: Path) -> None:
    (tmp_path / "models/m/1").mkdir(parents=True)
    write_mlp(tmp_path / "models/m/1/model.onnx")
    server = start(tmp_path / "models", "--model-control-mode", "explicit")
    client = http.InferenceServerClient(server.http, network_timeout=60)
    seen = []
    for _ in range(CYCLES):
        client.load_model("m")
        client.unload_model("m")
        seen.append(Held.by(server.process.pid))
    client.close()
    base, last = seen[:SETTLED], seen[-3:]
    # Of the last ones the least: what is just being closed is no leak, and what is kept each time is in all of them.
    # Mappings: 10 a cycle if nobody joined them again (csrc/engine/memory_policies.h).
    for of, tolerance in (("descriptors", 0), ("threads", 0), ("mappings", 24), ("rss_bytes", 16 * MB)):
        least = min(getattr(held, of) for held in last)
        assert least <= max(getattr(held, of) for held in base) + tolerance, (of, seen)
