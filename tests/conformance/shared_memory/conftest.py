"""Servers with --allow-client-shm, and clients that leave nothing registered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_memory import MAX_MESSAGE_BYTES, MOST_BYTES, MOST_REGIONS, mapped, write_models
from running_server import RunningServer


@pytest.fixture(scope="session", params=["io_threads", "uvloop"])
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("shared_memory")
    write_models(folder / "models")
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    flags = ("--allow-client-shm", "--io-threads", threads, "--max-message-bytes", str(MAX_MESSAGE_BYTES))
    limits = ("--client-shm-regions", str(MOST_REGIONS), "--client-shm-bytes", str(MOST_BYTES))
    with RunningServer(folder / "models", folder, *flags, *limits) as running:
        yield running
        assert running.process.poll() is None, running.log()
        running.signal()
        assert running.wait() == 0, running.log()


@pytest.fixture(params=["grpc", "http", "grpc.aio", "http.aio"])
def own(request: pytest.FixtureRequest, own_server: RunningServer, client_class: Any) -> Iterator[Any]:
    yield from cleaned(client_class(request.param, own_server), own_server)


@pytest.fixture(params=["grpc", "http"])
def either(request: pytest.FixtureRequest, own_server: RunningServer, client_class: Any) -> Iterator[Any]:
    """For what does not depend on how a client waits."""
    yield from cleaned(client_class(request.param, own_server), own_server)


def cleaned(client: Any, server: RunningServer) -> Iterator[Any]:
    yield client
    client.call("unregister_system_shared_memory")
    client.close()
    scraped = server.scrape()
    assert scraped["fastserve_shared_memory_regions"] == 0
    assert scraped["fastserve_shared_memory_bytes"] == 0
    assert not mapped(server)
