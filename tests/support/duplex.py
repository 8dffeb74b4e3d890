"""ModelStreamInfer with the grpcio client, one message at a time."""

from __future__ import annotations

import queue
from typing import Any

import grpc
from tritonclient.grpc import service_pb2_grpc
from wire import Infer, message


def stub(channel: grpc.Channel) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


class Duplex:
    """ModelStreamInfer, one message at a time."""

    def __init__(self, channel: grpc.Channel, **kwargs: Any) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        kwargs.setdefault("timeout", 20)
        self.call = stub(channel).ModelStreamInfer(iter(self._requests.get, None), **kwargs)

    def send(self, request: Infer) -> None:
        self.put(message(request))

    def put(self, request: Any) -> None:
        """A ModelInferRequest."""
        self._requests.put(request)

    def half_close(self) -> None:
        self._requests.put(None)

    def receive(self) -> Any:
        return next(self.call)
