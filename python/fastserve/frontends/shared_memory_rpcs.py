"""inference.GRPCInferenceService: system and CUDA shared memory."""

from __future__ import annotations

from typing import Any

from fastserve.frontends import shared_memory
from fastserve.frontends.grpc_registry import RpcCall, rpc
from fastserve.frontends.shared_memory import CudaRegion, Region

SERVICE = "/inference.GRPCInferenceService"


@rpc(f"{SERVICE}/SystemSharedMemoryStatus")
async def system_status(request: Any, call: RpcCall) -> Any:
    response = call.response()
    for region in shared_memory.system_status(call.served, request.name):
        answer = response.regions[region.name]
        answer.name, answer.key = region.name, region.key
        answer.offset, answer.byte_size = region.offset, region.byte_size
    return response


@rpc(f"{SERVICE}/SystemSharedMemoryRegister")
async def system_register(request: Any, call: RpcCall) -> Any:
    region = Region(request.name, request.key, request.offset, request.byte_size)
    await shared_memory.register(call.served, region)
    return call.response()


@rpc(f"{SERVICE}/SystemSharedMemoryUnregister")
async def system_unregister(request: Any, call: RpcCall) -> Any:
    shared_memory.unregister(call.served, "system", request.name)
    return call.response()


@rpc(f"{SERVICE}/CudaSharedMemoryStatus")
async def cuda_status(request: Any, call: RpcCall) -> Any:
    response = call.response()
    for region in shared_memory.cuda_status(call.served, request.name):
        answer = response.regions[region.name]
        answer.name, answer.device_id, answer.byte_size = region.name, region.device_id, region.byte_size
    return response


@rpc(f"{SERVICE}/CudaSharedMemoryRegister")
async def cuda_register(request: Any, call: RpcCall) -> Any:
    region = CudaRegion(request.name, request.device_id, request.byte_size)
    await shared_memory.register_cuda(call.served, region, request.raw_handle)
    return call.response()


@rpc(f"{SERVICE}/CudaSharedMemoryUnregister")
async def cuda_unregister(request: Any, call: RpcCall) -> Any:
    shared_memory.unregister(call.served, "cuda", request.name)
    return call.response()
