"""Triton's shared-memory extensions (contracts §2.5), the same for gRPC and REST.

System memory is there behind --allow-client-shm. CUDA memory is not: nothing can be registered, so there is nothing to show,
and unregistering does nothing, as in a Triton without a GPU; tritonclient's own examples unregister both kinds first. Both
share one name space.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

from fastserve.errors import InvalidArgument, NotFound, Unimplemented
from fastserve.frontends.names import MAX_ECHO_CHARS
from fastserve.frontends.served import Served

log = logging.getLogger("fastserve.shared_memory")

Kind = Literal["system", "cuda"]
MAX_UINT64 = (1 << 64) - 1
OFF = "shared memory is not enabled on this server; start it with --allow-client-shm, or send tensors in the request"
NO_GPU = "failed to register CUDA shared memory region: '{}': GPUs are not supported"


@dataclass(frozen=True)
class Region:
    """Field names are those of protos/ and of Triton's REST bodies."""

    name: str
    key: str
    offset: int
    byte_size: int


def status(served: Served, kind: Kind, name: str) -> list[Region]:
    """One region, or all of the kind when `name` is empty. Raises NotFound."""
    check_allowed(served)
    regions = [Region(*row) for row in served.core.shared_memory_regions()]
    if name and (kind == "cuda" or name not in (region.name for region in regions)):
        raise _unknown(kind, name, regions)
    if kind == "cuda":
        return []
    return [region for region in regions if name in ("", region.name)]


def register(served: Served, region: Region) -> None:
    """Raises AlreadyExists, InvalidArgument, ResourceExhausted."""
    check_allowed(served)
    for field in ("offset", "byte_size"):
        value: int = getattr(region, field)
        if not 0 <= value <= MAX_UINT64:
            raise InvalidArgument(f"{field}: got {value}, want 0 to {MAX_UINT64}")
    served.core.register_region(region.name, region.key, region.offset, region.byte_size)
    log.info("registered a region of shared memory", extra={"region": region.name, "bytes": region.byte_size})


def refuse_cuda(served: Served, name: str) -> None:
    """Raises Unimplemented."""
    check_allowed(served)
    raise Unimplemented(NO_GPU.format(name[:MAX_ECHO_CHARS]))


def unregister(served: Served, kind: Kind, name: str) -> None:
    """Of an unknown name: nothing. Requests that use the region finish with it. Raises NotFound for one of the other kind."""
    check_allowed(served)
    if kind == "cuda":
        regions = [Region(*row) for row in served.core.shared_memory_regions()]
        if name in (region.name for region in regions):
            raise _unknown(kind, name, regions)
        return
    if name:
        served.core.unregister_region(name)
    else:
        served.core.unregister_regions()
    log.info("unregistered shared memory", extra={"region": name or "all"})


def allowed(served: Served) -> bool:
    return served.core.shared_memory()["allowed"]


def check_allowed(served: Served) -> None:
    """Raises Unimplemented."""
    if not allowed(served):
        raise Unimplemented(OFF)


def _unknown(kind: Kind, name: str, regions: list[Region]) -> NotFound:
    shown: Any = name[:MAX_ECHO_CHARS]
    if name in (region.name for region in regions):
        return NotFound(
            f"The region named '{shown}' is registered as system shared memory, not CUDA shared memory"
        )
    return NotFound(f"Unable to find {kind} shared memory region: '{shown}'")
