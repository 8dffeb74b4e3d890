"""Page-locked and GPU memory as metrics, from made-up figures: Triton's names, one sample per GPU, version and part."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.pinned_memory import pinned_memory

PINNED = {
    "active": True,
    "budget": 1000,
    "slab_bytes": 800,
    "used_bytes": 600,
    "pageable_bytes": 50,
    "over_budget": 2,
    "refused": 3,
    "client_budget": 10,
    "client_ranges": 4,
    "client_bytes": 5,
    "client_refused": 6,
}
HOLDING = {"weights": 10, "activations": 20, "buffers": 30, "graphs": 40, "loading": False}


def ledger(uuid: str, *owners: str) -> dict[str, Any]:
    holdings = [{"owner": owner, **HOLDING} for owner in owners]
    return {"uuid": uuid, "budget": 950, "held": 100 * len(owners), "refused": 1, "holdings": holdings}


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = SimpleNamespace(pinned=dict(PINNED), gpus=[])
    monkeypatch.setattr(_core, "pinned_memory", lambda: made.pinned)
    monkeypatch.setattr(_core, "gpu_memory", lambda: made.gpus)
    return made


def samples(families: list[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def scraped() -> dict[tuple[str, ...], float]:
    statuses: Any = [SimpleNamespace(model="a", version=1)]
    return samples(list(pinned_memory(statuses)))


def test_nothing_without_a_gpu(figures: Any) -> None:
    figures.pinned["active"] = False
    assert scraped() == {}


def test_the_pool_has_tritons_names(figures: Any) -> None:
    found = scraped()
    assert found["nv_pinned_memory_pool_total_bytes",] == 1000
    assert found["nv_pinned_memory_pool_used_bytes",] == 600
    assert found["fastserve_pinned_memory_fallbacks_total", "budget"] == 2
    assert found["fastserve_pinned_memory_fallbacks_total", "refused"] == 3
    assert found["fastserve_pinned_regions_refused_total",] == 6


def test_each_gpu_and_version_has_its_own(figures: Any) -> None:
    figures.gpus = [ledger("GPU-1", "model 'a' version 1"), ledger("MIG-2", "model 'gone' version 2")]
    found = scraped()
    assert found["fastserve_gpu_memory_held_bytes", "GPU-1"] == 100
    assert found["fastserve_gpu_memory_budget_bytes", "MIG-2"] == 950
    assert found["fastserve_gpu_memory_refused_total", "MIG-2"] == 1
    assert found["fastserve_gpu_model_bytes", "GPU-1", "a", "1", "graphs"] == 40
    assert found["fastserve_gpu_model_bytes", "MIG-2", "model 'gone' version 2", "", "weights"] == 10


def test_the_core_says_what_is_declared() -> None:
    """Of this process, where no GPU is in use."""
    assert set(_core.pinned_memory()) == set(PINNED)
    assert not _core.pinned_memory()["active"]
    assert _core.gpu_memory() == []
