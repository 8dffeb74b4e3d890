"""Triton's CUDA shared-memory extension with tritonclient and a process that has the memory, on the simulated CUDA driver."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from client_memory import created, key_of, refused, shared_input, shared_output, write_models
from cuda_exporter import Exporter, simulated_driver
from running_server import RunningServer

from fastserve import _core

BYTES = 4096
DRIVER = simulated_driver()

pytestmark = pytest.mark.skipif(
    DRIVER is None or not getattr(_core, "has_gpu_lane", True),
    reason="no simulated CUDA driver, or no GPU lane",
)


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("cuda_memory")
    write_models(folder / "models")
    threads = {"io_threads": "1", "uvloop": "0"}[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(DRIVER))
        with RunningServer(
            folder / "models", folder, "--allow-client-shm", "--io-threads", threads
        ) as running:
            yield running
            assert running.process.poll() is None, running.log()


@pytest.fixture(params=["grpc", "http"])
def own(request: pytest.FixtureRequest, server: RunningServer, client_class: Any) -> Iterator[Any]:
    client = client_class(request.param, server)
    yield client
    client.call("unregister_system_shared_memory")
    client.call("unregister_cuda_shared_memory")
    client.close()
    assert server.scrape()["fastserve_shared_memory_regions"] == 0


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    assert DRIVER is not None
    with Exporter(DRIVER, BYTES) as made:
        yield made


def register(client: Any, name: str, handle: bytes, byte_size: int = BYTES, device: int = 0) -> None:
    client.call("register_cuda_shared_memory", name, base64.b64encode(handle), device, byte_size)


def regions(client: Any, name: str = "") -> dict[str, tuple[int, int]]:
    status = client.call("get_cuda_shared_memory_status", name)
    if client.is_grpc:
        return {n: (r.device_id, r.byte_size) for n, r in status.regions.items()}
    return {r["name"]: (r["device_id"], r["byte_size"]) for r in status}


def test_a_model_on_the_cpu_reads_and_answers_there(own: Any, exporter: Exporter) -> None:
    values = np.arange(8, dtype=np.int32)
    exporter.write(values.tobytes())
    register(own, "g", exporter.handle)
    inputs = [shared_input(own, f"INPUT{i}", [1, 4], "INT32", "g", 16, 16 * i) for i in (0, 1)]
    outputs = [shared_output(own, f"OUTPUT{i}", "g", 16, 1024 + 16 * i) for i in (0, 1)]
    answer = own.call("infer", "echo", inputs, outputs=outputs)
    assert exporter.read(1024 + 32)[1024:] == values.tobytes()
    output = answer.get_output("OUTPUT0")
    place = output.parameters if own.is_grpc else output["parameters"]
    assert set(place) == {"shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"}


def test_regions_are_told_and_forgotten(own: Any, exporter: Exporter) -> None:
    register(own, "a", exporter.handle)
    register(own, "b", exporter.handle, 100)  # the same handle again
    assert regions(own) == {"a": (0, BYTES), "b": (0, 100)}
    assert regions(own, "b") == {"b": (0, 100)}
    with refused(own, "ALREADY_EXISTS", "shared memory region 'a' already in manager"):
        register(own, "a", exporter.handle)
    with created("s", 64):
        with refused(own, "ALREADY_EXISTS", "shared memory region 'a' already in manager"):
            own.call("register_system_shared_memory", "a", key_of("s"), 64)
        with refused(own, "NOT_FOUND", "'a' is registered as CUDA shared memory, not system"):
            own.call("get_system_shared_memory_status", "a")
        own.call("register_system_shared_memory", "s", key_of("s"), 64)
        own.call("unregister_cuda_shared_memory", "a")
        own.call("unregister_cuda_shared_memory", "never there")
        assert regions(own) == {"b": (0, 100)}
        own.call("unregister_cuda_shared_memory")
        assert regions(own) == {}
        own.call("unregister_system_shared_memory", "s")


def test_what_a_client_does_wrong(own: Any, exporter: Exporter) -> None:
    with refused(own, "INVALID_ARGUMENT", "raw_handle: got one that does not open"):
        register(own, "g", bytes(64))
    for size in (63, 65):
        with refused(own, "INVALID_ARGUMENT", f"raw_handle: got {size} bytes, want 64"):
            register(own, "g", bytes(size))
    for device in (1, -1):
        with refused(own, "INVALID_ARGUMENT", f"device_id: got {device}"):
            register(own, "g", exporter.handle, device=device)
    with refused(own, "INVALID_ARGUMENT", f"byte_size: got {BYTES + 1}, want {BYTES} or less"):
        register(own, "g", exporter.handle, BYTES + 1)
    with refused(own, "INVALID_ARGUMENT", "byte_size: got 0"):
        register(own, "g", exporter.handle, 0)
    register(own, "g", exporter.handle)
    for place, words in (
        (("g", BYTES + 4), "Invalid offset + byte size for shared memory region: 'g'"),
        (("g", 4, BYTES), "Invalid offset for shared memory region: 'g'"),
        (("no", 4), "Unable to find shared memory region: 'no'"),
    ):
        code = "NOT_FOUND" if place[0] == "no" else "INVALID_ARGUMENT"
        with refused(own, code, words):
            own.call("infer", "quick", [shared_input(own, "INPUT0", [1], "INT32", *place)])


def test_a_region_that_is_unregistered_meanwhile_is_still_read(own: Any, exporter: Exporter) -> None:
    exporter.write(np.array([5], np.int32).tobytes())
    register(own, "g", exporter.handle)
    tensor = shared_input(own, "INPUT0", [1], "INT32", "g", 4)
    answer = own.call("infer", "quick", [tensor])
    own.call("unregister_cuda_shared_memory", "g")
    assert answer.as_numpy("OUTPUT0").tolist() == [5]
