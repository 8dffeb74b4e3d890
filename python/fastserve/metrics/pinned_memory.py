"""Page-locked host memory and the memory ledgers of the GPUs; nothing while no GPU is in use.

nv_pinned_memory_pool_total_bytes, _used_bytes     Triton's names: the budget of batches, and what is given out of it
fastserve_pinned_memory_locked_bytes               page-locked for batches now: used ones and spares
fastserve_pinned_memory_pageable_bytes             given to batches of GPU models beside it: their copies are synchronous
fastserve_pinned_memory_fallbacks_total{reason}    pieces that became pageable: budget, refused (by the driver or the system)
fastserve_pinned_regions, _bytes                   regions of clients that are page-locked
fastserve_pinned_regions_refused_total             that could not be: their budget, or the driver
fastserve_gpu_memory_budget_bytes{gpu_uuid}        what models may take of a GPU
fastserve_gpu_memory_held_bytes{gpu_uuid}          what they hold, by the ledger
fastserve_gpu_memory_refused_total{gpu_uuid}       loads that were refused for want of it
fastserve_gpu_model_bytes{gpu_uuid,model,version,part}   of each version: weights, activations, buffers, graphs
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from prometheus_client.core import Metric

from fastserve import _core
from fastserve.metrics.families import model_labels, single

_Part = Literal["weights", "activations", "buffers", "graphs"]
_PARTS: tuple[_Part, ...] = ("weights", "activations", "buffers", "graphs")


def pinned_memory(statuses: Iterable[_core.VersionStatus]) -> Iterator[Metric]:
    pinned = _core.pinned_memory()
    if pinned["active"]:
        yield from _arena(pinned)
        yield from _regions(pinned)
    ledgers = _core.gpu_memory()
    if ledgers:
        # As the lane names them: the ledger knows no models.
        known = {f"model '{s.model}' version {s.version}": model_labels(s) for s in statuses}
        yield from _ledgers(ledgers, known)


def _arena(pinned: _core.PinnedMemory) -> Iterator[Metric]:
    yield single(
        "gauge", "nv_pinned_memory_pool_total_bytes", "Pinned memory pool total memory size", pinned["budget"]
    )
    yield single(
        "gauge",
        "nv_pinned_memory_pool_used_bytes",
        "Pinned memory pool used memory size",
        pinned["used_bytes"],
    )
    prefix = "fastserve_pinned_memory"
    yield single(
        "gauge", f"{prefix}_locked_bytes", "Host memory page-locked for batches", pinned["slab_bytes"]
    )
    yield single(
        "gauge",
        f"{prefix}_pageable_bytes",
        "Pageable memory of batches of GPU models",
        pinned["pageable_bytes"],
    )
    fallbacks = Metric(
        f"{prefix}_fallbacks_total", "Buffers that are pageable though they were to be page-locked", "counter"
    )
    fallbacks.add_sample(fallbacks.name, {"reason": "budget"}, pinned["over_budget"])
    fallbacks.add_sample(fallbacks.name, {"reason": "refused"}, pinned["refused"])
    yield fallbacks


def _regions(pinned: _core.PinnedMemory) -> Iterator[Metric]:
    prefix = "fastserve_pinned_regions"
    yield single("gauge", prefix, "Regions of clients that are page-locked", pinned["client_ranges"])
    yield single("gauge", f"{prefix}_bytes", "Bytes of these regions", pinned["client_bytes"])
    yield single(
        "counter",
        f"{prefix}_refused_total",
        "Regions of clients that could not be page-locked",
        pinned["client_refused"],
    )


def _ledgers(ledgers: list[_core.GpuMemory], known: dict[str, dict[str, str]]) -> Iterator[Metric]:
    prefix = "fastserve_gpu_memory"
    budget = Metric(f"{prefix}_budget_bytes", "Memory of a GPU that models may take", "gauge")
    held = Metric(f"{prefix}_held_bytes", "Memory of a GPU that models hold", "gauge")
    refused = Metric(f"{prefix}_refused_total", "Loads that were refused for want of GPU memory", "counter")
    models = Metric("fastserve_gpu_model_bytes", "Memory of a GPU by version and use", "gauge")
    for ledger in ledgers:
        gpu = {"gpu_uuid": ledger["uuid"]}
        budget.add_sample(budget.name, gpu, ledger["budget"])
        held.add_sample(held.name, gpu, ledger["held"])
        refused.add_sample(refused.name, gpu, ledger["refused"])
        for holding in ledger["holdings"]:
            labels = {**gpu, **known.get(holding["owner"], {"model": holding["owner"], "version": ""})}
            for part in _PARTS:
                models.add_sample(models.name, {**labels, "part": part}, holding[part])
    yield from (budget, held, refused, models)
