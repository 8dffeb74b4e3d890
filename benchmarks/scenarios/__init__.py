"""One module per scenario; each has `run(bench) -> Result`. Adding one: write the module, name it here."""

from __future__ import annotations

from collections.abc import Callable

from harness.bench import Bench
from harness.report import Result

from scenarios import clients, echo, embed, gil, idle, large, mlp, resnet50, rest, small, threads, tls

SCENARIOS: dict[str, Callable[[Bench], Result]] = {
    "small": small.run,
    "clients": clients.run,
    "large": large.run,
    "rest": rest.run,
    "gil": gil.run,
    "idle": idle.run,
    "threads": threads.run,
    "tls": tls.run,
    "mlp": mlp.run,
    "resnet50": resnet50.run,
    "embed": embed.run,
    "echo": echo.run,
}
