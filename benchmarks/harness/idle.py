"""Connections that have asked once and say nothing more, for the length of a block."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
from collections.abc import Iterator
from typing import Any

from harness.bench import Bench
from harness.processes import BenchError, Server

OPEN_S = 120.0


@contextlib.contextmanager
def idle_connections(bench: Bench, server: Server, protocol: str, count: int) -> Iterator[None]:
    """`protocol`: "grpc" or "rest". Raises BenchError if one is refused or does not last."""
    address = server.addresses["grpc" if protocol == "grpc" else "http"]
    command = [bench.tool("idle_connections"), f"--{protocol}", address, "--connections", str(count)]
    process = subprocess.Popen(
        [str(word) for word in [*command, *bench.on_client_cpu()]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], OPEN_S)
        if not readable or not process.stdout.readline():
            process.kill()
            raise BenchError(f"{count} idle {protocol} connections: {process.communicate()[1].strip()}")
        yield
        rest, errors = process.communicate(timeout=OPEN_S)  # the end of its input is its signal
        found: dict[str, Any] = json.loads(rest or "{}")
        if process.returncode != 0:
            raise BenchError(f"{found.get('broken')} of {count} idle {protocol} connections broke {errors}")
    finally:
        process.kill()
        process.wait()
