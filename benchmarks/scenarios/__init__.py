"""One module per scenario; each has `run(bench) -> Result`. Adding one: write the module, name it here."""

from __future__ import annotations

from collections.abc import Callable

from harness.bench import Bench
from harness.report import Result

from scenarios import echo, embed, large, mlp, resnet50, small

SCENARIOS: dict[str, Callable[[Bench], Result]] = {
    "small": small.run,
    "large": large.run,
    "mlp": mlp.run,
    "resnet50": resnet50.run,
    "embed": embed.run,
    "echo": echo.run,
}
