"""One real server for all conformance tests, and the four real tritonclients behind one face."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from model_repository import write_repository
from running_server import RunningServer

MAX_MESSAGE_BYTES = 4 << 20  # of the server under test; its default would make the tests slow


Drivers = Callable[[str], RunningServer]


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drivers]:
    """drivers("io_threads" | "uvloop") -> the server over it, started when first asked for and kept to the end: pytest orders
    tests by their parameters, and a server that ended with each change would start some thirty times."""
    started: dict[str, RunningServer] = {}

    def server_over(driver: str) -> RunningServer:
        if driver not in started:
            folder = tmp_path_factory.mktemp("conformance")
            threads = {"io_threads": "2", "uvloop": "0"}[driver]
            arguments = ("--max-message-bytes", str(MAX_MESSAGE_BYTES), "--io-threads", threads)
            started[driver] = RunningServer(write_repository(folder / "models"), folder, *arguments)
        return started[driver]

    try:
        yield server_over
        for running in started.values():
            running.signal()
            assert running.wait() == 0, running.log()
    finally:
        for running in started.values():
            running.close()


@pytest.fixture(scope="session", params=["io_threads", "uvloop"])
def server(request: pytest.FixtureRequest, drivers: Drivers) -> RunningServer:
    """Both drivers of the sockets answer the same: every test runs over each."""
    return drivers(request.param)


class Client:
    """tritonclient in one of its four forms; `call` is a method of it, awaited where it is a coroutine."""

    def __init__(self, kind: str, server: RunningServer) -> None:
        self.kind = kind
        self.is_grpc = kind.startswith("grpc")
        self.module: Any = importlib.import_module(f"tritonclient.{kind.partition('.')[0]}")
        implementation: Any = importlib.import_module(f"tritonclient.{kind}")
        self._loop = asyncio.new_event_loop() if kind.endswith("aio") else None
        self._client = self._await(self._make(implementation, server))

    async def _make(self, implementation: Any, server: RunningServer) -> Any:
        return implementation.InferenceServerClient(server.grpc if self.is_grpc else server.http)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        result = getattr(self._client, method)(*args, **kwargs)
        return self._await(result) if self._loop else result

    def json(self, method: str, *args: Any) -> Any:
        """An answer as a dictionary, whichever protocol it came by."""
        return self.call(method, *args, **({"as_json": True} if self.is_grpc else {}))

    def infer(self, model: str, inputs: dict[str, tuple[str, Any]], **kwargs: Any) -> Any:
        """`inputs`: name -> (datatype, array); sent as binary."""
        return self.call("infer", model, [self.input(n, d, a) for n, (d, a) in inputs.items()], **kwargs)

    def input(self, name: str, datatype: str, array: Any, **kwargs: Any) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **kwargs)
        return tensor

    def close(self) -> None:
        if self._loop:
            self._await(self._client.close())
            self._loop.close()
        else:
            self._client.close()

    def _await(self, awaitable: Any) -> Any:
        if self._loop is None:  # _make only, which waits for nothing
            try:
                awaitable.send(None)
            except StopIteration as stop:
                return stop.value
            raise AssertionError("not reached")
        return self._loop.run_until_complete(awaitable)


@pytest.fixture(scope="session", params=["grpc", "http", "grpc.aio", "http.aio"])
def client(request: pytest.FixtureRequest, server: RunningServer) -> Iterator[Client]:
    made = Client(request.param, server)
    yield made
    made.close()


@pytest.fixture(scope="session")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    """One connection: what a test leaves behind on it, the next one meets."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as opened:
        yield opened


@pytest.fixture(scope="session")
def client_class() -> type[Client]:
    """For tests that start a server of their own: client_class("grpc", server)."""
    return Client
