"""ONNX -> plan, by way of the cache. The key names everything that the plan depends on, so that nothing is ever served by a
plan of another model, version, driver or GPU."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.build import PlanBuild
from fastserve.gpu.tensorrt.build_profiles import Wanted
from fastserve.gpu.tensorrt.build_progress import Progress
from fastserve.gpu.tensorrt.libraries import Library
from fastserve.gpu.tensorrt.onnx_file import hashes
from fastserve.gpu.tensorrt.plan_cache import PlanCache
from fastserve.gpu.tensorrt.settings import BuildSettings

logger = logging.getLogger("fastserve.gpu.tensorrt")

# Of what we make of the settings: profiles, flags, the file's layout. Another number, other keys.
SCHEMA = 1


@dataclass(frozen=True)
class Gpu:
    """What plans are made for."""

    name: str  # "NVIDIA H200"
    compute_capability: str  # "9.0"
    uuid: str  # "GPU-..." or "MIG-...": of a slice, other kernels are the best ones

    @property
    def text(self) -> str:
        return f"{self.name} ({self.compute_capability})"


@dataclass(frozen=True)
class BuiltPlan:
    content: bytes | memoryview
    key: str
    origin: str  # for people: "built in 31.4 s", "from the plan cache"


def key_of(
    files: Mapping[str, str],
    library: Library,
    driver_version: int,
    gpu: Gpu,
    wanted: Wanted,
    settings: BuildSettings,
) -> str:
    """SHA-256 of all of it. `files`: name -> SHA-256 (onnx_file.hashes)."""
    everything = {
        "schema": SCHEMA,
        "files": dict(files),
        "library": [library.name, library.version],
        "driver": driver_version // 1000,  # minor versions run each other's plans
        "gpu": _gpu_key(gpu, settings),
        "wanted": asdict(wanted),
        "settings": asdict(settings),
    }
    return _digest(everything)


def timing_key(library: Library, driver_version: int, gpu: Gpu) -> str:
    what = [SCHEMA, library.name, library.version, driver_version // 1000, gpu.name, gpu.compute_capability]
    return f"timing-{_digest(what)}"


def _gpu_key(gpu: Gpu, settings: BuildSettings) -> list[str]:
    if settings.hardware_compatibility == "ampere_plus":
        return ["ampere_plus"]
    if settings.hardware_compatibility == "same_compute_capability":
        return ["same_compute_capability", gpu.compute_capability]
    return [gpu.name, gpu.compute_capability, gpu.uuid.partition("-")[0]]


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def plan_of(
    library: Library,
    path: Path,
    wanted: Wanted,
    settings: BuildSettings,
    gpu: Gpu,
    driver_version: int,
    store: PlanCache | None,
    told: Progress,
) -> BuiltPlan:
    """InvalidArgument, Unimplemented: the file, or what is asked of it. ResourceExhausted: it does not fit."""
    told(0.0, f"reading {path.name}")
    try:
        model = path.read_bytes()
    except OSError as error:
        raise errors.NotFound(f"'{path.name}': {error.strerror or error}") from None
    try:
        files = hashes(path, model)
    except errors.InvalidArgument as error:
        raise errors.InvalidArgument(f"'{path.name}': {error.message}") from None
    key = key_of(files, library, driver_version, gpu, wanted, settings)
    if store is None:
        return _built(library, path, model, wanted, settings, key, None, "", told)
    with store.locked(key, lambda: told(0.0, "waiting for another process that builds the same plan")):
        found = store.find(key)
        if found is not None:
            return BuiltPlan(found, key, "from the plan cache")
        timing = "" if library.is_rtx else timing_key(library, driver_version, gpu)
        return _built(library, path, model, wanted, settings, key, store, timing, told)


def _built(
    library: Library,
    path: Path,
    model: bytes,
    wanted: Wanted,
    settings: BuildSettings,
    key: str,
    store: PlanCache | None,
    timing: str,
    told: Progress,
) -> BuiltPlan:
    began = time.monotonic()
    build = PlanBuild(library, path, settings)
    earlier = store.find(timing) if store is not None and timing else None
    content = build.build(model, wanted, told, earlier)
    took_s = time.monotonic() - began
    logger.info("'%s': built by %s in %.1f s, %d bytes", path.name, library.text, took_s, content.nbytes)
    if store is not None:
        told(0.95, "keeping the plan")
        try:
            store.store(key, content)
            if timing and (measured := build.timing_cache()) is not None:
                store.store(timing, measured)
        except OSError as error:  # it only costs time at the next start
            logger.warning("the plan of '%s' is not kept: %s", path.name, error.strerror or error)
    return BuiltPlan(content, key, f"built in {took_s:.1f} s")
