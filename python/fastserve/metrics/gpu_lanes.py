"""What the lanes of each GPU did (csrc/backend/cuda_counts.h); nothing until a model was loaded on one.

fastserve_gpu_batches_total{gpu_uuid,how}        batches: graph (a CUDA graph), fallback (the model's own code, through Python),
                                                 failed (by an error that left the device alive)
fastserve_gpu_in_place_copies_total{gpu_uuid}    copies straight between clients' memory and the device
fastserve_gpu_unpinned_copies_total{gpu_uuid}    copies of memory that is not page-locked: 0 when all is well
fastserve_gpu_lost{gpu_uuid}                     1: its driver needs a new process
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from fastserve import _core


def gpu_lanes() -> Iterator[Metric]:
    rows = _core.gpu_lane_counts()
    if not rows:
        return
    batches = Metric("fastserve_gpu_batches_total", "Batches run on the GPU", "counter")
    in_place = Metric(
        "fastserve_gpu_in_place_copies_total",
        "Copies straight between clients' memory and the GPU",
        "counter",
    )
    unpinned = Metric(
        "fastserve_gpu_unpinned_copies_total", "Copies of host memory that is not page-locked", "counter"
    )
    lost = Metric("fastserve_gpu_lost", "1: the GPU needs a new process", "gauge")
    for row in rows:
        labels = {"gpu_uuid": row["uuid"]}
        for how, count in (
            ("graph", row["graph_batches"]),
            ("fallback", row["fallback_batches"]),
            ("failed", row["failed_batches"]),
        ):
            batches.add_sample("fastserve_gpu_batches_total", {**labels, "how": how}, count)
        in_place.add_sample("fastserve_gpu_in_place_copies_total", labels, row["in_place_copies"])
        unpinned.add_sample("fastserve_gpu_unpinned_copies_total", labels, row["unpinned_copies"])
        lost.add_sample("fastserve_gpu_lost", labels, int(row["lost"]))
    yield from (batches, in_place, unpinned, lost)
