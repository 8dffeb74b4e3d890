"""The ports that speak HTTP/2, and the rule of every case here: the next connection is served as if nothing had been."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http2_frames import Peer, Target, grpc_target, rest_target


@pytest.fixture(params=["grpc", "http"])
def target(request: pytest.FixtureRequest, server: Any) -> Iterator[Target]:
    made = grpc_target(server.grpc) if request.param == "grpc" else rest_target(server.http)
    yield made
    made.serves()


@pytest.fixture
def peer(target: Target) -> Iterator[Peer]:
    with target.peer() as opened:
        yield opened
