"""gRPC over grpcio's blocking API: one channel (one connection, many streams). Any thread may call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from fastserve.client import grpc_wire
from fastserve.client.calls import Call
from fastserve.client.settings import Settings

T = TypeVar("T")


class GrpcTransport:
    """`call` makes one attempt."""

    def __init__(self, settings: Settings) -> None:
        self._grpc = grpc_wire.grpc_module()
        target, credentials, options = grpc_wire.channel_arguments(settings)
        if credentials is None:
            self._channel = self._grpc.insecure_channel(target, options)
        else:
            self._channel = self._grpc.secure_channel(target, credentials, options)
        self._metadata = grpc_wire.metadata(settings)
        self._where = str(settings.address)
        self._methods: dict[str, Any] = {}

    def call(self, call: Call[T], timeout: float | None, deadline: float | None) -> T:
        method = self._methods.get(call.rpc)
        if method is None:
            method = self._methods[call.rpc] = self._channel.unary_unary(grpc_wire.path(call.rpc))
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            data = method(call.message().SerializeToString(), timeout=left, metadata=self._metadata)
        except self._grpc.RpcError as error:
            raise grpc_wire.of_rpc_error(error, self._where) from None
        return grpc_wire.read(call, data)

    def stream(self, requests: Iterable[Call[Any]], deadline: float | None) -> Iterator[Any]:
        """Result or FastserveError for every answer. Leaving the iteration cancels the stream."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        messages = (request.message().SerializeToString() for request in requests)
        method = self._channel.stream_stream(grpc_wire.path("ModelStreamInfer"))
        answers = method(messages, timeout=left, metadata=self._metadata)
        try:
            for data in answers:
                yield grpc_wire.stream_item(data)
        except self._grpc.RpcError as error:
            raise grpc_wire.of_rpc_error(error, self._where).error from None
        finally:
            answers.cancel()

    def close(self) -> None:
        self._channel.close()
