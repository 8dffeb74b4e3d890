"""How a model's requests wait and are batched, what its instances hold, what runs before it serves: plain frozen data,
the checks that hold however it was spelled (config.pbtxt, model.yaml, keyword arguments), and its way into the engine.

    engine.load("m", path, target_p99_ms=25, queue=Queue(max_requests=256), priorities=Priorities(levels=3, default=2))

Standard library and _core only. Every knob in words: lifecycle/README.md.
"""

from fastserve.scheduling.core_spec import core_arguments
from fastserve.scheduling.cpu_set import cpus_text, parse_cpus
from fastserve.scheduling.faults import Fault, faults
from fastserve.scheduling.knobs import (
    Fill,
    Instances,
    OnTimeout,
    Priorities,
    Queue,
    RateLimit,
    Resource,
    Scheduling,
    WarmUp,
    WarmUpInput,
)
from fastserve.scheduling.limits import (
    MAX_CPUS,
    MAX_DELAY_US,
    MAX_INSTANCES,
    MAX_PRIORITY_LEVELS,
    MAX_REQUESTS,
    MAX_RESOURCE_COUNT,
    MAX_ROWS,
    MAX_TIMEOUT_MS,
    MAX_WARM_UP_RUNS,
)

__all__ = [
    "MAX_CPUS",
    "MAX_DELAY_US",
    "MAX_INSTANCES",
    "MAX_PRIORITY_LEVELS",
    "MAX_REQUESTS",
    "MAX_RESOURCE_COUNT",
    "MAX_ROWS",
    "MAX_TIMEOUT_MS",
    "MAX_WARM_UP_RUNS",
    "Fault",
    "Fill",
    "Instances",
    "OnTimeout",
    "Priorities",
    "Queue",
    "RateLimit",
    "Resource",
    "Scheduling",
    "WarmUp",
    "WarmUpInput",
    "core_arguments",
    "cpus_text",
    "faults",
    "parse_cpus",
]
