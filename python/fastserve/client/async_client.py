"""`AsyncClient`: the asyncio client. client.py has the same methods, blocking, and documents them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from fastserve.client import calls, core
from fastserve.client.calls import Call
from fastserve.client.core import UNSET, Inputs, Request
from fastserve.client.failure import AttemptFailed
from fastserve.client.infer_call import InferCall, infer_call
from fastserve.client.result import (
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    Parameter,
    Result,
    ServerMetadata,
)
from fastserve.client.retry import Retry
from fastserve.client.settings import MAX_CONNECTIONS, MAX_MESSAGE_BYTES, settings
from fastserve.client.tensors import Output
from fastserve.errors import FastserveError

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio: the same arguments, errors and results; one event loop.

        async with AsyncClient("http://127.0.0.1:8000") as client:
            results = await asyncio.gather(*(client.infer("digits", {"image": image}) for image in images))

    Cancelling a task cancels its request.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float | None = 60.0,
        retry: Retry | None = None,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str = "",
        headers: Mapping[str, str] | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        keepalive: float | None = None,
        binary: bool | None = None,
    ) -> None:
        """As of `Client`."""
        self._settings = settings(
            url,
            timeout=timeout,
            retry=retry,
            ca=ca,
            cert=cert,
            key=key,
            server_name=server_name,
            headers=headers,
            max_connections=max_connections,
            max_message_bytes=max_message_bytes,
            keepalive=keepalive,
            binary=binary,
        )
        self._transport: Any
        if self._settings.address.protocol == "grpc":
            from fastserve.client.grpc_async import AsyncGrpcTransport

            self._transport = AsyncGrpcTransport(self._settings)
        else:
            from fastserve.client.http_async import AsyncHttpTransport

            self._transport = AsyncHttpTransport(self._settings)
        self._binary = binary
        self._metadata: dict[tuple[str, str], ModelMetadata] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._settings.address}>"

    async def close(self) -> None:
        """Closes the connections. Safe to call twice."""
        await self._transport.close()

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str | Output] | None = None,
        id: str = "",
        timeout: float | None = UNSET,
        priority: int | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        idempotent: bool = False,
    ) -> Result:
        """See `Client.infer`."""
        seconds, deadline = core.deadline_of(self._settings, timeout)
        call = await self._infer_call(
            model,
            inputs,
            deadline,
            version=version,
            outputs=outputs,
            id=id,
            priority=priority,
            parameters=parameters,
        )
        if self._settings.address.protocol == "http" and not await self._uses_binary(deadline):
            call = call.in_json()
        return await self._attempts(call, seconds, deadline, idempotent)

    async def stream(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: str | int = "",
        outputs: Sequence[str | Output] | None = None,
        id: str = "",
        timeout: float | None = UNSET,
        priority: int | None = None,
        parameters: Mapping[str, Parameter] | None = None,
    ) -> AsyncIterator[Result]:
        """See `Client.stream`: `async for part in client.stream("llm", {"prompt": prompt})`."""
        _, deadline = core.deadline_of(self._settings, timeout)
        call = await self._infer_call(
            model,
            inputs,
            deadline,
            version=version,
            outputs=outputs,
            id=id,
            priority=priority,
            parameters=parameters,
        )
        async with aclosing(self._stream([call], deadline)) as items:
            async for item in items:
                if isinstance(item, FastserveError):
                    raise item
                yield item

    async def stream_all(
        self, requests: Iterable[Request] | AsyncIterable[Request], *, timeout: float | None = UNSET
    ) -> AsyncIterator[Result | FastserveError]:
        """See `Client.stream_all`. An asynchronous iterable may wait for answers before its next request."""
        _, deadline = core.deadline_of(self._settings, timeout)
        made: Iterable[Call[Any]] | AsyncIterable[Call[Any]]
        if isinstance(requests, AsyncIterable):
            made = (request.call() async for request in requests)
        else:
            made = core.calls_of(requests)
        async with aclosing(self._stream(made, deadline)) as items:
            async for item in items:
                yield item

    async def live(self, *, timeout: float | None = UNSET) -> bool:
        """See `Client.live`."""
        return await self._call(calls.Live(), timeout)

    async def ready(self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET) -> bool:
        """See `Client.ready`."""
        return await self._call(calls.ModelReady(model, str(version)) if model else calls.Ready(), timeout)

    @overload
    async def metadata(self, *, timeout: float | None = UNSET) -> ServerMetadata: ...
    @overload
    async def metadata(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> ModelMetadata: ...
    async def metadata(
        self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET
    ) -> ServerMetadata | ModelMetadata:
        """See `Client.metadata`."""
        call: Call[Any] = calls.ModelMetadata(model, str(version)) if model else calls.ServerMetadata()
        found: ServerMetadata | ModelMetadata = await self._call(call, timeout)
        return found

    async def config(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> dict[str, Any]:
        """See `Client.config`."""
        return await self._call(calls.ModelConfig(model, str(version)), timeout)

    async def statistics(
        self, model: str = "", *, version: str | int = "", timeout: float | None = UNSET
    ) -> list[ModelStatistics]:
        """See `Client.statistics`."""
        return await self._call(calls.Statistics(model, str(version)), timeout)

    async def scheduling(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> dict[str, Any]:
        """See `Client.scheduling`."""
        return await self._call(calls.Scheduling(model, str(version)), timeout)

    async def scheduling_picture(
        self, model: str, *, version: str | int = "", timeout: float | None = UNSET
    ) -> str:
        """See `Client.scheduling_picture`."""
        return await self._call(calls.SchedulingPicture(model, str(version)), timeout)

    async def labels(self, model: str, *, timeout: float | None = UNSET) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: what the labels of the model's versions stand for."""
        return await self._call(calls.Labels(model), timeout)

    async def change_labels(
        self,
        model: str,
        labels: Mapping[str, Mapping[int, float] | None],
        expected: Mapping[str, Mapping[int, float] | None] | None = None,
        *,
        timeout: float | None = UNSET,
    ) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: assigns labels, all at once: {"canary": {3: 95, 4: 5}}; None removes one. `expected`: what
        labels have to stand for now (None: they are not there), else FailedPrecondition. Returns all labels."""
        return await self._call(calls.ChangeLabels(model, labels, expected or {}), timeout)

    async def states(self, *, timeout: float | None = UNSET) -> list[dict[str, Any]]:
        """fastserve only, over HTTP: every version with its state, labels, memory and counts."""
        return await self._call(calls.States(), timeout)

    async def reload(self, *, timeout: float | None = UNSET) -> bool:
        """fastserve only, over HTTP: has the server read its repositories again; whether anything is different there. Loads go
        on after the answer (`states`)."""
        return await self._call(calls.Reload(), timeout)

    async def index(self, *, ready: bool = False, timeout: float | None = UNSET) -> list[IndexEntry]:
        """See `Client.index`."""
        return await self._call(calls.Index(ready), timeout)

    async def load(
        self,
        model: str,
        *,
        config: str | Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout: float | None = UNSET,
    ) -> None:
        """See `Client.load`."""
        await self._call(core.load_call(model, config, files), timeout)

    async def unload(self, model: str, *, dependents: bool = False, timeout: float | None = UNSET) -> None:
        """See `Client.unload`."""
        await self._call(calls.Unload(model, dependents), timeout)

    async def _call(self, call: Call[T], timeout: Any) -> T:
        seconds, deadline = core.deadline_of(self._settings, timeout)
        return await self._attempts(call, seconds, deadline, call.idempotent)

    async def _attempts(
        self, call: Call[T], seconds: float | None, deadline: float | None, idempotent: bool
    ) -> T:
        attempt = 1
        while True:
            try:
                value: T = await self._transport.call(call, seconds, deadline)
                return value
            except AttemptFailed as failed:
                await asyncio.sleep(
                    core.pause_before_retry(self._settings, attempt, failed, idempotent, deadline)
                )
            attempt += 1

    async def _infer_call(
        self, model: str, inputs: Inputs, deadline: float | None, **arguments: Any
    ) -> InferCall:
        if not core.is_mapping(inputs):
            inputs = core.named(
                inputs, await self._known_metadata(model, str(arguments["version"]), deadline)
            )
        return infer_call(model, inputs, **arguments)

    async def _known_metadata(self, model: str, version: str, deadline: float | None) -> ModelMetadata:
        """Asked for once: the input's name does not change while a client lives."""
        found = self._metadata.get((model, version))
        if found is None:
            found = await self._attempts(calls.ModelMetadata(model, version), None, deadline, True)
            self._metadata[model, version] = found
        return found

    async def _uses_binary(self, deadline: float | None) -> bool:
        if self._binary is None:
            try:
                metadata = await self._attempts(calls.ServerMetadata(), None, deadline, True)
                self._binary = core.lists_binary(metadata.extensions)
            except FastserveError as error:
                if error.http_status is None:  # not the server's word
                    raise
                self._binary = False
        return self._binary

    def _stream(
        self, requests: Iterable[Call[Any]] | AsyncIterable[Call[Any]], deadline: float | None
    ) -> AsyncGenerator[Result | FastserveError]:
        if self._settings.address.protocol != "grpc":
            raise core.no_streams()
        items: AsyncGenerator[Result | FastserveError] = self._transport.stream(requests, deadline)
        return items
