"""OIP, Triton's extensions and grpc.health.v1 over the fake engine of conftest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastserve import protos
from fastserve.frontends.grpc_registry import GrpcRouter
from fastserve.frontends.served import Served

OIP = "/inference.GRPCInferenceService/"


async def ask(served: Served, grpc_call: Any, path: str, **fields: Any) -> tuple[tuple[int, str], Any]:
    method = protos.method(path)
    call = grpc_call(path, protos.message_class(method.input_type.full_name)(**fields).SerializeToString())
    GrpcRouter(served).on_call(call)
    async with asyncio.timeout(5):
        while call.finished is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
    response = protos.message_class(method.output_type.full_name)
    return call.finished, response.FromString(call.sent[0]) if call.sent else None


async def test_live_and_ready(served: Served, grpc_call: Any) -> None:
    assert (await ask(served, grpc_call, OIP + "ServerLive"))[1].live
    assert (await ask(served, grpc_call, OIP + "ServerReady"))[1].ready
    served.ready.set(False)
    assert (await ask(served, grpc_call, OIP + "ServerLive"))[1].live
    assert not (await ask(served, grpc_call, OIP + "ServerReady"))[1].ready


async def test_health_check_follows_readiness_for_any_service(served: Served, grpc_call: Any) -> None:
    path = "/grpc.health.v1.Health/Check"
    assert (await ask(served, grpc_call, path, service="no.such.Service"))[1].status == 1
    served.ready.set(False)
    assert (await ask(served, grpc_call, path))[1].status == 2


async def test_model_ready_is_false_and_not_an_error_for_unknown_models(
    served: Served, grpc_call: Any
) -> None:
    for name, version, ready in [
        ("plain", "", True),
        ("plain", "4", False),
        ("broken", "", False),
        ("no", "", False),
    ]:
        finished, response = await ask(served, grpc_call, OIP + "ModelReady", name=name, version=version)
        assert finished == (0, "")
        assert response.ready is ready, (name, version)


async def test_server_metadata(served: Served, grpc_call: Any) -> None:
    _, response = await ask(served, grpc_call, OIP + "ServerMetadata")
    assert (response.name, response.version) == ("fastserve", "1.2.3")
    assert "binary_tensor_data" in response.extensions
    assert "system_shared_memory" not in response.extensions  # not served


async def test_model_metadata(served: Served, grpc_call: Any) -> None:
    _, response = await ask(served, grpc_call, OIP + "ModelMetadata", name="plain")
    assert list(response.versions) == ["1", "3"]
    assert response.platform == "identity"
    assert [(t.name, t.datatype, list(t.shape)) for t in response.inputs] == [("x", "FP32", [-1, 4])]
    _, response = await ask(served, grpc_call, OIP + "ModelMetadata", name="plain", version="1")
    assert list(response.versions) == ["1"]
    finished, _ = await ask(served, grpc_call, OIP + "ModelMetadata", name="no")
    assert finished == (5, "Request for unknown model: 'no' is not found")


async def test_statistics_of_everything_of_a_model_and_of_a_version(served: Served, grpc_call: Any) -> None:
    async def versions(**fields: str) -> list[tuple[str, str]]:
        _, response = await ask(served, grpc_call, OIP + "ModelStatistics", **fields)
        return [(s.name, s.version) for s in response.model_stats]

    assert await versions() == [("plain", "3"), ("plain", "1")]
    assert await versions(name="plain") == [("plain", "1"), ("plain", "3")]
    assert await versions(name="plain", version="3") == [("plain", "3")]
    finished, _ = await ask(served, grpc_call, OIP + "ModelStatistics", name="no")
    assert finished[0] == 5


async def test_statistics_have_tritons_meaning(served: Served, grpc_call: Any) -> None:
    _, response = await ask(served, grpc_call, OIP + "ModelStatistics", name="plain", version="1")
    stats = response.model_stats[0]
    assert (stats.inference_count, stats.execution_count, stats.last_inference) == (40, 20, 1_700_000_000_000)
    parts = stats.inference_stats
    assert (parts.success.count, parts.success.ns) == (10, 1_000_000)
    assert (parts.fail.count, parts.fail.ns) == (6, 60)  # failed, refused and cancelled
    assert (parts.queue.count, parts.compute_infer.count, parts.compute_output.count) == (11, 13, 14)
    batch = stats.batch_stats[0]
    assert (batch.batch_size, batch.compute_input.count, batch.compute_output.ns) == (2, 1, 6)


async def test_repository_index(served: Served, grpc_call: Any) -> None:
    _, response = await ask(served, grpc_call, OIP + "RepositoryIndex")
    assert [(m.name, m.version, m.state, m.reason) for m in response.models] == [
        ("broken", "1", "UNAVAILABLE", "not an ONNX file"),
        ("plain", "1", "READY", ""),
        ("plain", "3", "READY", ""),
        ("plain", "4", "LOADING", ""),
        ("unreadable", "", "UNAVAILABLE", "config.pbtxt:3: unknown field 'inptu'"),
    ]
    _, response = await ask(served, grpc_call, OIP + "RepositoryIndex", ready=True)
    assert {m.state for m in response.models} == {"READY"}


async def test_names_are_checked(served: Served, grpc_call: Any) -> None:
    for name in ("../etc", "..", "a/b", "a\0b", "x" * 129, ""):
        finished, _ = await ask(served, grpc_call, OIP + "ModelMetadata", name=name)
        assert finished[0] == 3, name
        assert len(finished[1]) < 300
    for version in ("abc", "-1", "0", "1.0", "9" * 30, "¹"):
        finished, _ = await ask(served, grpc_call, OIP + "ModelMetadata", name="plain", version=version)
        assert finished[0] == 3, version


@pytest.mark.parametrize("kind", ["System", "Cuda"])
@pytest.mark.parametrize("verb", ["Status", "Register", "Unregister"])
async def test_shared_memory_is_off_and_says_so(served: Served, grpc_call: Any, kind: str, verb: str) -> None:
    finished, _ = await ask(served, grpc_call, OIP + f"{kind}SharedMemory{verb}")
    assert finished == (
        12,
        "shared memory is not enabled on this server; start it with --allow-client-shm, "
        "or send tensors in the request",
    )


async def test_shared_memory(served: Served, core: Any, grpc_call: Any) -> None:
    core.shared_memory_allowed = True

    async def call(method: str, **fields: Any) -> tuple[int, Any]:
        finished, response = await ask(served, grpc_call, OIP + method, **fields)
        return finished[0], response

    register = {"name": "r", "key": "/k", "offset": 8, "byte_size": (1 << 64) - 1}
    assert (await call("SystemSharedMemoryRegister", **register))[0] == 0
    for name in ("", "r"):
        _, status = await call("SystemSharedMemoryStatus", name=name)
        assert {n: (r.name, r.key, r.offset, r.byte_size) for n, r in status.regions.items()} == {
            "r": ("r", "/k", 8, (1 << 64) - 1)
        }
    assert (await call("SystemSharedMemoryStatus", name="x"))[0] == 5
    assert (await call("CudaSharedMemoryRegister", name="c"))[0] == 12
    assert (await call("CudaSharedMemoryUnregister", name="r"))[0] == 5
    assert (await call("CudaSharedMemoryUnregister"))[0] == 0
    assert list(core.regions) == ["r"]
    assert (await call("SystemSharedMemoryUnregister", name="x"))[0] == 0
    assert (await call("SystemSharedMemoryUnregister"))[0] == 0
    assert not core.regions
    _, metadata = await ask(served, grpc_call, OIP + "ServerMetadata")
    assert "system_shared_memory" in metadata.extensions


async def test_cuda_shared_memory(served: Served, core: Any, grpc_call: Any) -> None:
    core.shared_memory_allowed = core.has_gpu = True

    async def call(method: str, **fields: Any) -> tuple[int, Any]:
        finished, response = await ask(served, grpc_call, OIP + method, **fields)
        return finished[0], response

    register = {"name": "g", "raw_handle": b"handle", "device_id": 1, "byte_size": (1 << 64) - 1}
    assert (await call("CudaSharedMemoryRegister", **register))[0] == 0
    for name in ("", "g"):
        _, status = await call("CudaSharedMemoryStatus", name=name)
        assert {n: (r.name, r.device_id, r.byte_size) for n, r in status.regions.items()} == {
            "g": ("g", 1, (1 << 64) - 1)
        }
    for method in ("SystemSharedMemoryStatus", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus"):
        name = "x" if method.startswith("Cuda") else "g"
        assert (await call(method, name=name))[0] == 5
    assert (await call("SystemSharedMemoryUnregister"))[0] == 0
    assert list(core.cuda_regions) == ["g"]
    assert (await call("CudaSharedMemoryUnregister", name="x"))[0] == 0
    assert (await call("CudaSharedMemoryUnregister"))[0] == 0
    assert not core.cuda_regions


async def test_health_list(served: Served, grpc_call: Any) -> None:
    _, response = await ask(served, grpc_call, "/grpc.health.v1.Health/List")
    assert {name: status.status for name, status in response.statuses.items()} == {"": 1}


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def statuses(call: Any) -> list[int]:
    response = protos.message_class("grpc.health.v1.HealthCheckResponse")
    return [response.FromString(sent).status for sent in call.sent]


async def test_watch_tells_many_every_change_once(served: Served, grpc_call: Any) -> None:
    router = GrpcRouter(served)
    calls = [grpc_call("/grpc.health.v1.Health/Watch") for _ in range(500)]
    for call in calls:
        router.on_call(call)
    await until(lambda: all(len(call.sent) == 1 for call in calls))
    served.ready.set(False)
    await until(lambda: all(len(call.sent) == 2 for call in calls))
    served.ready.set(True)
    served.ready.set(False)  # before anybody has looked: no change to tell
    for _ in range(20):
        await asyncio.sleep(0)
    assert all(statuses(call) == [1, 2] for call in calls)
    await router.close()
    assert {call.finished for call in calls} == {(14, "the server is shutting down")}


async def test_a_watcher_that_goes_leaves_nothing_behind(served: Served, grpc_call: Any) -> None:
    router = GrpcRouter(served)
    gone, stays = grpc_call("/grpc.health.v1.Health/Watch"), grpc_call("/grpc.health.v1.Health/Watch")
    router.on_call(gone)
    router.on_call(stays)
    await until(lambda: gone.sent and stays.sent)
    gone.cancel()
    await until(lambda: len(router._tasks) == 1)
    served.ready.set(False)
    await until(lambda: len(stays.sent) == 2)
    assert statuses(gone) == [1]
    assert gone.finished is None
    await router.close()
