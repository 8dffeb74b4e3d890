"""What clients change by request.

fastserve_model_operations_refused_total    loads and unloads beyond those that may run or wait
fastserve_load_file_bytes                   files that loads brought along, as long as they are kept (--load-file-bytes)
fastserve_state_file_failures_total         times that --state-file could not be written
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from fastserve.metrics.families import single


class ControlCollector:
    """A prometheus_client collector."""

    def __init__(
        self, refused: Callable[[], int], file_bytes: Callable[[], int], state_failures: Callable[[], int]
    ) -> None:
        self._refused = refused
        self._file_bytes = file_bytes
        self._state_failures = state_failures

    def collect(self) -> Iterator[Metric]:
        name = "fastserve_model_operations_refused_total"
        yield single("counter", name, "Loads and unloads beyond those that may run or wait", self._refused())
        name = "fastserve_load_file_bytes"
        yield single("gauge", name, "Bytes of files that loads by request brought along", self._file_bytes())
        name = "fastserve_state_file_failures_total"
        yield single(
            "counter", name, "Times that the state file could not be written", self._state_failures()
        )
