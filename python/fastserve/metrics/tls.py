"""TLS: handshakes, why others failed, and until when the certificate is good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

if TYPE_CHECKING:
    from fastserve._io import IoStatistics


class TlsCollector:
    """A prometheus_client collector, registered only where TLS is on."""

    def __init__(
        self,
        io_statistics: Callable[[], Iterable[IoStatistics]],
        not_after: Callable[[], int],
        reloads: Mapping[str, int],
    ) -> None:
        self._io_statistics = io_statistics
        self._not_after = not_after
        self._reloads = reloads

    def collect(self) -> Iterator[Metric]:
        loops = list(self._io_statistics())
        yield _family(
            "gauge",
            "fastserve_tls_certificate_not_after_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970",
            {(): self._not_after()},
        )
        yield _family(
            "counter",
            "fastserve_tls_reloads_total",
            "Attempts to read the TLS files again",
            {(("result", result),): count for result, count in self._reloads.items()},
        )
        yield _family(
            "counter",
            "fastserve_tls_handshakes_total",
            "Handshakes that were completed",
            {(): sum(io.tls_handshakes for io in loops)},
        )
        failures: dict[tuple[tuple[str, str], ...], float] = {}
        for io in loops:
            for reason, count in io.tls_failures.items():
                key = (("reason", reason),)
                failures[key] = failures.get(key, 0) + count
        yield _family(
            "counter", "fastserve_tls_failures_total", "Connections that TLS refused or gave up", failures
        )
        yield _family(
            "counter",
            "fastserve_tls_truncated_total",
            "Connections that ended without close_notify",
            {(): sum(io.tls_truncated for io in loops)},
        )


def _family(kind: str, name: str, text: str, values: Mapping[tuple[tuple[str, str], ...], float]) -> Metric:
    family = Metric(name, text, kind)
    for labels, value in values.items():
        family.add_sample(name, dict(labels), value)
    return family
