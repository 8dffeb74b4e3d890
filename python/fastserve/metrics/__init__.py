"""Prometheus metrics: what the engine and the I/O loops count, read when somebody scrapes. Nothing is counted
twice."""

from fastserve.metrics.collector import EngineCollector
from fastserve.metrics.exposition import CONTENT_TYPE, exposition, pieces
from fastserve.metrics.gpu import GpuCollector
from fastserve.metrics.lifecycle import LifecycleCollector
from fastserve.metrics.local import LocalCollector
from fastserve.metrics.loop_lag import LoopLag
from fastserve.metrics.tls import TlsCollector

__all__ = [
    "CONTENT_TYPE",
    "EngineCollector",
    "GpuCollector",
    "LifecycleCollector",
    "LocalCollector",
    "LoopLag",
    "TlsCollector",
    "exposition",
    "pieces",
]
