"""The asyncio client of the local transport. Opening a model and getting more memory ask the server, which takes
microseconds, on the loop; inference waits on the socket like any other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from fastserve import _core
from fastserve.client.local.core import LocalResult, Models, Parameters, SlotViews, path_of
from fastserve.client.local.tensors import Array
from fastserve.errors import FastserveError, Unavailable


class AsyncSlot:
    """As `Slot`; `run` is awaited."""

    def __init__(self, client: AsyncLocalClient, views: SlotViews) -> None:
        self._client = client
        self._views = views

    @property
    def inputs(self) -> dict[str, Array]:
        return self._views.inputs

    def set_strings(self, name: str, value: Any) -> None:
        self._views.set_strings(name, value)

    async def run(
        self,
        *,
        timeout: float | None = None,
        queue_timeout: float | None = None,
        request_id: str = "",
        priority: int = 0,
        parameters: Parameters | None = None,
    ) -> LocalResult:
        self._views.options(request_id, priority, timeout, queue_timeout, parameters)
        await self._client._run(self._views)
        return self._views.result()


class AsyncLocalClient:
    """Made by `await AsyncLocalClient.connect(address)`, or `async with AsyncLocalClient(address) as client`."""

    def __init__(
        self, address: str, *, cells: int = 128, cell_bytes: int = 1024, connect_timeout: float = 5.0
    ) -> None:
        self._address = address
        self._options: dict[str, Any] = {
            "cells": cells,
            "cell_bytes": cell_bytes,
            "timeout_s": connect_timeout,
        }
        self._cells = asyncio.Semaphore(cells)  # in flight: more wait here
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._pumping = False

    @classmethod
    async def connect(cls, address: str, **options: Any) -> Self:
        client = cls(address, **options)
        await client._connect()
        return client

    async def _connect(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = await asyncio.to_thread(
            lambda: _core.LocalConnection.connect(path_of(self._address), **self._options)
        )
        self._models = Models(self._connection)
        self._descriptor = self._connection.descriptor
        self._loop.add_reader(self._descriptor, self._on_readable)

    async def infer(
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
        """As LocalClient.infer. Cancelling the task cancels the request."""
        views, key = self._models.filled(model, version, inputs, outputs, room or {})
        views.options(request_id, priority, timeout, queue_timeout, parameters)
        try:
            await self._run(views)
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
    ) -> AsyncSlot:
        return AsyncSlot(
            self, self._models.slot(self._models.find(model, version), rows, shapes, room, outputs)
        )

    def model(self, name: str, version: str = "") -> _core.LocalModel:
        return self._models.refresh(name, version)

    @property
    def gone(self) -> bool:
        return self._connection.gone

    async def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._connection.close()
        self._fail(Unavailable("the connection is closed"))
        self._models.clear()

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, views: SlotViews) -> None:
        async with self._cells:
            self._connection.submit(views.core)
            done = self._loop.create_future()
            self._waiting[id(views.core)] = done
            self._pump_soon()
            try:
                await done
            except asyncio.CancelledError:
                self._connection.cancel(views.core)
                raise
            finally:
                self._waiting.pop(id(views.core), None)

    def _pump_soon(self) -> None:
        """One ring of the doorbell for everything that is submitted in this turn of the loop."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        try:
            self._connection.flush()
            while True:
                while (slot := self._connection.next()) is not None:
                    done = self._waiting.get(id(slot))
                    if done is not None and not done.done():
                        done.set_result(None)
                if self._connection.in_flight == 0 or self._connection.arm():
                    return
                if self._connection.gone:
                    raise Unavailable("the server of the local transport is gone")
        except FastserveError as error:
            self._fail(error)

    def _on_readable(self) -> None:
        self._connection.woken()
        if self._connection.gone:
            self._loop.remove_reader(self._descriptor)
        self._pump()

    def _fail(self, error: FastserveError) -> None:
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(error)
