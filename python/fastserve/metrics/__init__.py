"""Prometheus metrics: what the engine and the I/O loops count, read when somebody scrapes. Nothing is counted
twice."""

from fastserve.metrics.collector import EngineCollector
from fastserve.metrics.exposition import CONTENT_TYPE, exposition
from fastserve.metrics.loop_lag import LoopLag

__all__ = ["CONTENT_TYPE", "EngineCollector", "LoopLag", "exposition"]
