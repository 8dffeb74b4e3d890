"""Memory of models and held requests as Prometheus text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastserve.metrics import exposition
from fastserve.metrics.memory import MemoryCollector


class Core:
    def status(self) -> list[Any]:
        return [
            SimpleNamespace(model="a", version=1, state="READY", memory_bytes=4096),
            SimpleNamespace(model="a", version=2, state="DRAINING", memory_bytes=0),
            SimpleNamespace(model="b", version=1, state="LOADING", memory_bytes=7),
        ]

    def parking(self) -> Any:
        return SimpleNamespace(requests=3, bytes=300, parked=5, refused=2)


def test_what_there_is() -> None:
    text = exposition(
        MemoryCollector(Core(), SimpleNamespace(asleep=frozenset("xy"), wakes=4)).collect()
    ).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'fastserve_model_memory_bytes{model="a",version="1"} 4096',
        'fastserve_model_memory_bytes{model="a",version="2"} 0',
        "fastserve_sleeping_models 2",
        "fastserve_model_wakes_total 4",
        "fastserve_held_requests 3",
        "fastserve_held_request_bytes 300",
        "fastserve_held_requests_total 5",
        "fastserve_asleep_requests_refused_total 2",
    ]
