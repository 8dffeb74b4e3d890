"""The blocking client of the local transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from fastserve import _core
from fastserve.client.local.core import LocalResult, Models, Parameters, SlotViews, path_of
from fastserve.client.local.tensors import Array
from fastserve.errors import Cancelled, DeadlineExceeded


class Slot:
    """Memory that the server reads and writes. `inputs[name]` are arrays to be filled; what `run` returns are views that
    the next run overwrites. A context manager: at its end the memory may be used for another slot, so copy what is to stay.
    """

    def __init__(self, client: LocalClient, views: SlotViews) -> None:
        self._client = client
        self._views: SlotViews | None = views

    @property
    def inputs(self) -> dict[str, Array]:
        """Without those of strings: `set_strings`."""
        return self._open().inputs

    def set_strings(self, name: str, value: Any) -> None:
        """Within the room that the slot was made with."""
        self._open().set_strings(name, value)

    def run(
        self,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        request_id: str = "",
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> LocalResult:
        views = self._open()
        views.options(request_id, priority, timeout, queue_timeout, parameters)
        self._client._run(views, timeout)
        return views.result()

    def close(self) -> None:
        self._views = None

    def _open(self) -> SlotViews:
        if self._views is None:
            raise ValueError("the slot is closed")
        return self._views

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LocalClient:
    def __init__(
        self, address: str, *, cells: int = 128, cell_bytes: int = 1024, connect_timeout: float = 5.0
    ) -> None:
        """`address`: `unix:/path` or `/path`. `cells`: requests in flight, a power of two. `cell_bytes`: larger than 1024 for
        models with dozens of tensors. Raises Unavailable, PermissionDenied."""
        self._connection = _core.LocalConnection.connect(
            path_of(address), cells=cells, cell_bytes=cell_bytes, timeout_s=connect_timeout
        )
        self._models = Models(self._connection)
        self._lock = threading.RLock()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        room: Mapping[str, int] | None = None,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        request_id: str = "",
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> LocalResult:
        """{name: array}, the caller's own. `room`: bytes for outputs whose size the signature leaves open (default 1 MiB).
        `parameters`: for the model."""
        with self._lock:
            views, key = self._models.filled(model, version, inputs, outputs, room or {})
            views.options(request_id, priority, timeout, queue_timeout, parameters)
            self._run(views, timeout)
            try:
                return views.result().copied()
            finally:
                self._models.put_back(key, views)

    def slot(
        self,
        model: str,
        rows: int = 1,
        *,
        version: str = "",
        shapes: Mapping[str, Sequence[int]] | None = None,
        room: Mapping[str, int] | None = None,
        outputs: Sequence[str] = (),
    ) -> Slot:
        """Room for `rows` rows. `shapes`: of inputs whose dimensions the signature leaves open; `room`: bytes for inputs of
        strings and for outputs that it leaves open."""
        with self._lock:
            return Slot(
                self, self._models.slot(self._models.find(model, version), rows, shapes, room, outputs)
            )

    def model(self, name: str, version: str = "") -> _core.LocalModel:
        """Its signature (inputs, outputs, max_batch_rows) and version as the server has them now."""
        with self._lock:
            return self._models.refresh(name, version)

    @property
    def gone(self) -> bool:
        """The server is gone, or this client is closed: make a new one."""
        return self._connection.gone

    def close(self) -> None:
        with self._lock:
            self._models.clear()
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, views: SlotViews, timeout: float | None) -> None:
        """Until it is answered. The server answers a passed deadline itself; we give up a little later."""
        with self._lock:
            end = None if timeout is None else time.monotonic() + timeout + 0.25
            self._connection.submit(views.core)
            try:
                while views.core.in_flight:
                    self._connection.wait(1e12 if end is None else max(0.0, end - time.monotonic()))
                    while self._connection.next() is not None:
                        pass
            except DeadlineExceeded:
                self._connection.cancel(views.core)
                raise
            except (KeyboardInterrupt, Cancelled):
                self._connection.cancel(views.core)
                raise
