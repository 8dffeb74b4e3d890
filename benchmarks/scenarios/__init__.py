"""One module per scenario; each has `run(bench) -> Result`. Adding one: write the module, name it here."""

from __future__ import annotations

from collections.abc import Callable

from harness.bench import Bench
from harness.report import Result

from scenarios import (
    clients,
    echo,
    embed,
    expiry,
    gil,
    idle,
    idle_models,
    large,
    local,
    many_models,
    mlp,
    overload,
    python_worker,
    reloads,
    resnet50,
    rest,
    small,
    swaps,
    sweep,
    threads,
    tls,
)

SCENARIOS: dict[str, Callable[[Bench], Result]] = {
    "small": small.run,
    "clients": clients.run,
    "large": large.run,
    "local": local.run,
    "rest": rest.run,
    "gil": gil.run,
    "idle": idle.run,
    "idle_models": idle_models.run,
    "many_models": many_models.run,
    "threads": threads.run,
    "tls": tls.run,
    "overload": overload.run,
    "mlp": mlp.run,
    "resnet50": resnet50.run,
    "swaps": swaps.run,
    "reloads": reloads.run,
    "sweep": sweep.run,
    "embed": embed.run,
    "echo": echo.run,
    "python_worker": python_worker.run,
    "expiry": expiry.run,
}

# Parts of others, for a machine that is not to be had for so long: only when they are named.
PARTS: dict[str, Callable[[Bench], Result]] = {"swaps_api": swaps.by_api, "swaps_poll": swaps.by_poll}
