"""The largest values that make sense; beyond them a figure is a mistake. faults.py has the smallest ones."""

from __future__ import annotations

MAX_DELAY_US = 3_600_000_000  # one hour, also of the target
MAX_TIMEOUT_MS = 86_400_000  # one day
MAX_REQUESTS = 1 << 30  # waiting requests
MAX_PRIORITY_LEVELS = 1024
MAX_INSTANCES = 1024  # of a model; beyond it the figure is a mistake
MAX_ROWS = 1 << 30  # of a batch and of a request
MAX_CPUS = 1024  # numbers of a cpu_set_t
MAX_RESOURCE_COUNT = 1 << 30
MAX_WARM_UP_RUNS = 10_000  # of one sample on one instance
