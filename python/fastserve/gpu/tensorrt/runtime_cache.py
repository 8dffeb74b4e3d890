"""What TensorRT-RTX compiles on the GPU at the first run of a plan, kept for the next start (its IRuntimeCache).

A part of the contexts' runtime configuration; TensorRT has no such cache: its kernels are in the plan.
"""

from __future__ import annotations

import logging
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.libraries import Library
from fastserve.gpu.tensorrt.plan_cache import PlanCache

logger = logging.getLogger("fastserve.gpu.tensorrt")


class RuntimeCache:
    """Of one engine."""

    def __init__(self, library: Library, engine: Any, store: PlanCache | None, key: str) -> None:
        self._library, self._store, self._key = library, store, f"runtime-{key}"
        self._config = library.made("creating a runtime configuration", engine.create_runtime_config)
        self._cache = library.made("creating a runtime cache", self._config.create_runtime_cache)
        kept = store.find(self._key) if store is not None else None
        if kept is not None and not self._cache.deserialize(kept):
            logger.info(
                "%s does not take the kernels of an earlier start: they are compiled anew", library.text
            )
        library.made("setting a runtime cache", lambda: self._config.set_runtime_cache(self._cache))
        # Kernels for a shape compiled in the background would come after the capture, which goes on without them; and until then
        # the context says that it cannot be captured.
        strategies = getattr(library.trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is not None:
            self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER

    def config(self, strategy: Any) -> Any:
        """For create_execution_context."""
        self._library.done(
            "choosing who allocates", lambda: self._config.set_execution_context_allocation_strategy(strategy)
        )
        return self._config

    def keep(self) -> None:
        if self._store is None:
            return
        try:
            blob = self._library.made("serializing the runtime cache", self._cache.serialize)
            self._store.store(self._key, memoryview(blob))
        except (errors.FastserveError, OSError) as error:  # it only costs time at the next start
            logger.warning("kernels compiled for this GPU are not kept: %s", error)


def runtime_cache(library: Library, engine: Any, store: PlanCache | None, key: str) -> RuntimeCache | None:
    """None: this library needs none."""
    has_one = hasattr(getattr(library.trt, "IRuntimeConfig", None), "create_runtime_cache")
    return RuntimeCache(library, engine, store, key) if has_one else None
