"""A server's models as rows, from fastserve's own route or, elsewhere, from what Triton's API has."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from fastserve.cli import connect

if TYPE_CHECKING:
    from fastserve.client import Client

# fastserve's states by Triton's.
_STATES = {"LOADING": "LOADING", "READY": "READY", "UNLOADING": "DRAINING", "UNAVAILABLE": "UNLOADED"}
LOADING = {"NEW", "LOADING", "WARMING"}


@dataclass(frozen=True)
class Row:
    """None: the server does not tell."""

    name: str
    version: str = ""
    state: str = ""  # as ModelState has it; "": never loaded
    reason: str = ""
    progress: float | None = None  # 0..1
    retry_in_s: float | None = None
    labels: dict[str, float] = field(default_factory=dict)  # with weights
    instances: int | None = None
    memory_bytes: int | None = None
    requests: int | None = None  # answered since it was loaded
    failures: int | None = None
    gpu_memory_bytes: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.version

    def json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def is_http(args: argparse.Namespace) -> bool:
    return not connect.url_of(args).startswith(("grpc", "unix:"))


class Rows:
    """Asks one server again and again."""

    def __init__(self, client: Client, *, own: bool) -> None:
        """`own`: over HTTP, where fastserve's route may be."""
        self._client = client
        self._own = own

    def read(self) -> list[Row]:
        """Raises as the client does."""
        from fastserve.client import FastserveError

        if self._own:
            try:
                return [_own_row(row) for row in self._client.states()]
            except FastserveError as error:
                if error.http_status not in (400, 404, 405, 501):
                    raise
                self._own = False  # another server
        return self._index()

    def _index(self) -> list[Row]:
        counts = {(s.name, s.version): s for s in self._client.statistics()}
        rows = []
        for entry in self._client.index():
            statistics = counts.get((entry.name, entry.version))
            is_failed = entry.state == "UNAVAILABLE" and entry.reason not in ("", "unloaded")
            rows.append(
                Row(
                    entry.name,
                    entry.version,
                    "FAILED" if is_failed else _STATES.get(entry.state, entry.state),
                    entry.reason,
                    requests=statistics.total("success").count if statistics else None,
                    failures=statistics.total("fail").count if statistics else None,
                )
            )
        return rows


def _own_row(row: dict[str, Any]) -> Row:
    known = Row.__dataclass_fields__.keys()
    return Row(**{name: value for name, value in row.items() if name in known})
