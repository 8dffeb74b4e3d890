"""Budgets of the GPU lane's memory, as `fastserve serve` is told to have them. They hold for the process."""

from __future__ import annotations

from fastserve import _core, config


def apply(limits: config.Limits) -> None:
    """Before the first model is loaded and the first region registered. Without a GPU nothing comes of it."""
    _core.limit_pinned_memory(
        pool_bytes=limits.pinned_memory_pool_byte_size, client_bytes=limits.client_pinned_bytes
    )
    _core.limit_gpu_memory(limits.gpu_memory_fraction)
