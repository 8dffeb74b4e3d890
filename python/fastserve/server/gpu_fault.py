"""A GPU that the process has lost (csrc/backend/cuda_fault.h): the server is not ready any more, and ends for its supervisor.

Nothing short of a new process brings a lost device back: its context is dead. Requests to its models are answered UNAVAILABLE by
the engine meanwhile; a grace period lets these answers and those of other models go out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fastserve import _core

log = logging.getLogger("fastserve.server")

EXIT_GPU_LOST = 70  # EX_SOFTWARE of sysexits.h
STAY = -1.0  # grace period of a server that is not to end
LOOK_S = 0.2


async def watch(
    set_unready: Callable[[], None],
    exit_now: Callable[[int], None],
    *,
    grace_s: float,
    faults: Callable[[], Sequence[_core.GpuFault]] = _core.gpu_faults,
    look_s: float = LOOK_S,
) -> None:
    """Never returns by itself, but where `exit_now` does. `grace_s`: from the loss to the exit; STAY: none."""
    while not (lost := faults()):  # noqa: ASYNC110
        await asyncio.sleep(look_s)
    loop = asyncio.get_running_loop()
    until = loop.time() + grace_s
    plan = (
        "staying, not ready"
        if grace_s < 0
        else f"not ready; ending with exit code {EXIT_GPU_LOST} in {grace_s:g} s"
    )
    for fault in lost:
        log.critical("%s: %s", fault["reason"], plan, extra={"gpu": fault["uuid"], "batch": fault["batch"]})
    while grace_s < 0 or loop.time() < until:
        set_unready()  # again: the first load may end meanwhile
        await asyncio.sleep(look_s if grace_s < 0 else max(0.0, min(look_s, until - loop.time())))
    exit_now(EXIT_GPU_LOST)
