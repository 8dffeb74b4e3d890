"""Triton's shared-memory extensions (contracts §2.5), the same for gRPC and REST.

Both are there behind --allow-client-shm; CUDA memory where the server has a GPU. Without one nothing of that kind can be
registered, so there is nothing to show, and unregistering does nothing, as in a Triton without a GPU; tritonclient's own examples
unregister both kinds first. Both share one name space.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from fastserve import _core
from fastserve.errors import InvalidArgument, NotFound, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS
from fastserve.frontends.served import Served

log = logging.getLogger("fastserve.shared_memory")

Kind = Literal["system", "cuda"]
MAX_UINT64 = (1 << 64) - 1
MAX_INT64 = (1 << 63) - 1
OFF = "shared memory is not enabled on this server; start it with --allow-client-shm, or send tensors in the request"


@dataclass(frozen=True)
class Region:
    """Field names are those of protos/ and of Triton's REST bodies."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(frozen=True)
class CudaRegion:
    """Likewise; the handle is not shown again."""

    name: str
    device_id: int
    byte_size: int


def system_status(served: Served, name: str) -> list[Region]:
    """One region, or all when `name` is empty. Raises NotFound."""
    check_allowed(served)
    regions = [Region(*row) for row in served.core.shared_memory_regions()]
    _check_known(served, "system", name)
    return [region for region in regions if name in ("", region.name)]


def cuda_status(served: Served, name: str) -> list[CudaRegion]:
    """One region, or all when `name` is empty. Raises NotFound."""
    check_allowed(served)
    regions = [CudaRegion(*row) for row in served.core.cuda_memory_regions()]
    _check_known(served, "cuda", name)
    return [region for region in regions if name in ("", region.name)]


async def register(served: Served, region: Region) -> None:
    """Raises AlreadyExists, InvalidArgument, ResourceExhausted."""
    check_allowed(served)
    for field in ("offset", "byte_size"):
        _check_range(field, getattr(region, field), 0, MAX_UINT64)
    call = partial(served.core.register_region, region.name, region.key, region.offset, region.byte_size)
    # While a GPU is in use the region is page-locked, which takes milliseconds, and much longer for gigabytes.
    await asyncio.to_thread(call) if _core.pinned_memory()["active"] else call()
    log.info("registered a region of shared memory", extra={"region": region.name, "bytes": region.byte_size})


async def register_cuda(served: Served, region: CudaRegion, raw_handle: bytes) -> None:
    """`raw_handle`: a cudaIpcMemHandle_t of another process. Raises Unimplemented without a GPU, else as `register`."""
    check_allowed(served)
    _check_range("device_id", region.device_id, -MAX_INT64 - 1, MAX_INT64)
    _check_range("byte_size", region.byte_size, 0, MAX_UINT64)
    # The first one starts the driver, which may take a second.
    await asyncio.to_thread(
        served.core.register_cuda_region, region.name, raw_handle, region.device_id, region.byte_size
    )
    log.info("registered a region of GPU memory", extra={"region": region.name, "bytes": region.byte_size})


def unregister(served: Served, kind: Kind, name: str) -> None:
    """Of an unknown name: nothing. Requests that use the region finish with it. Raises NotFound for one of the other kind."""
    check_allowed(served)
    if not name:
        served.core.unregister_regions(kind == "cuda")
    else:
        if name in _names(served, "system" if kind == "cuda" else "cuda"):
            raise _unknown(served, kind, name)
        served.core.unregister_region(name)
    log.info("unregistered shared memory", extra={"region": name or "all", "kind": kind})


def allowed(served: Served) -> bool:
    return served.core.shared_memory()["allowed"]


def check_allowed(served: Served) -> None:
    """Raises Unimplemented."""
    if not allowed(served):
        raise Unimplemented(OFF)


def _names(served: Served, kind: Kind) -> set[str]:
    core = served.core
    return {
        row[0] for row in (core.cuda_memory_regions() if kind == "cuda" else core.shared_memory_regions())
    }


def _check_known(served: Served, kind: Kind, name: str) -> None:
    if name and name not in _names(served, kind):
        raise _unknown(served, kind, name)


def _check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidArgument(f"{field}: got {value}, want {least} to {most}")


def _unknown(served: Served, kind: Kind, name: str) -> NotFound:
    shown: Any = name[:MAX_ECHO_CHARS]
    other: Kind = "system" if kind == "cuda" else "cuda"
    if name in _names(served, other):
        title = {"system": "system", "cuda": "CUDA"}
        return NotFound(
            f"The region named '{shown}' is registered as {title[other]} shared memory, not {title[kind]} shared memory"
        )
    return NotFound(f"Unable to find {kind} shared memory region: '{shown}'")
