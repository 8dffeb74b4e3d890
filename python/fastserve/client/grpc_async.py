"""gRPC over grpcio's asyncio API: one channel (one connection, many streams). One event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, TypeVar

from fastserve.client import grpc_wire
from fastserve.client.calls import Call
from fastserve.client.settings import Settings

T = TypeVar("T")


class AsyncGrpcTransport:
    """`call` makes one attempt."""

    def __init__(self, settings: Settings) -> None:
        self._grpc = grpc_wire.grpc_module()
        target, credentials, options = grpc_wire.channel_arguments(settings)
        if credentials is None:
            self._channel = self._grpc.aio.insecure_channel(target, options)
        else:
            self._channel = self._grpc.aio.secure_channel(target, credentials, options)
        self._metadata = grpc_wire.metadata(settings)
        self._where = str(settings.address)
        self._methods: dict[str, Any] = {}

    async def call(self, call: Call[T], timeout: float | None, deadline: float | None) -> T:
        method = self._methods.get(call.rpc)
        if method is None:
            method = self._methods[call.rpc] = self._channel.unary_unary(grpc_wire.path(call.rpc))
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            data = await method(call.message().SerializeToString(), timeout=left, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise grpc_wire.of_rpc_error(error, self._where) from None
        return grpc_wire.read(call, data)

    async def stream(
        self, requests: Iterable[Call[Any]] | AsyncIterable[Call[Any]], deadline: float | None
    ) -> AsyncIterator[Any]:
        """Result or FastserveError for every answer. Leaving the iteration cancels the stream."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        method = self._channel.stream_stream(grpc_wire.path("ModelStreamInfer"))
        answers = method(_messages(requests), timeout=left, metadata=self._metadata)
        try:
            async for data in answers:
                yield grpc_wire.stream_item(data)
        except self._grpc.RpcError as error:
            raise grpc_wire.of_rpc_error(error, self._where).error from None
        finally:
            answers.cancel()

    async def close(self) -> None:
        await self._channel.close()


async def _messages(requests: Iterable[Call[Any]] | AsyncIterable[Call[Any]]) -> AsyncIterator[bytes]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request.message().SerializeToString()
    else:
        for request in requests:
            yield request.message().SerializeToString()
            await asyncio.sleep(0)
