"""Calls to other models of the same server, from inside a model: over the local transport, on a connection that the server gave
this process. Nothing of it is imported before the first call.

A model waits while it calls, and its process does nothing else. So it may not call itself (FailedPrecondition: it would wait for
the process that it keeps busy), and models that call each other in a circle wait until `timeout_s` is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastserve import errors

if TYPE_CHECKING:
    from fastserve.client.local.core import LocalResult
    from fastserve.client.local.sync import LocalClient
    from fastserve.worker.model import Array, Parameter


class ServerCalls:
    """fastserve.worker.model.Calls. Any thread; one call at a time."""

    def __init__(self, fd: int, model: str, limit_s: float) -> None:
        """`limit_s`: of calls that say none, and so much as a batch may take at all."""
        self._fd = fd
        self._model = model
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._client: LocalClient | None = None
        try:
            os.set_inheritable(fd, False)
        except OSError:
            self._fd = -1

    def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
    ) -> LocalResult:
        if model == self._model:
            raise errors.FailedPrecondition(
                f"model '{model}' calls itself: it would wait for its own process"
            )
        limit_s = self._limit_s if timeout_s is None else timeout_s
        return self._connected().infer(
            model,
            inputs,
            version=str(version) if version > 0 else "",
            outputs=outputs,
            timeout=limit_s or None,
            request_id=request_id,
            priority=priority,
            parameters=parameters,
        )

    def _connected(self) -> LocalClient:
        with self._lock:
            if self._fd < 0:
                raise errors.Unavailable("calls to other models: the server gave this process no connection")
            if self._client is None or self._client.gone:
                self._client = _client(self._fd)
            return self._client


def _client(fd: int) -> LocalClient:
    from fastserve import _core
    from fastserve.client.local.core import Models
    from fastserve.client.local.sync import LocalClient

    class OverDescriptor(LocalClient):
        def __init__(self) -> None:
            self._connection = _core.LocalConnection.over(fd)
            self._models = Models(self._connection)
            self._lock = threading.RLock()

    return OverDescriptor()
