"""inference.GRPCInferenceService: system and CUDA shared memory, which are not there yet."""

from __future__ import annotations

from typing import Any

from fastserve.errors import Unimplemented
from fastserve.frontends.grpc_registry import RpcCall, rpc

SERVICE = "/inference.GRPCInferenceService"
NOT_YET = "shared memory is not supported yet; send tensors in the request"


def _refuse(method: str) -> None:
    @rpc(f"{SERVICE}/{method}")
    async def refuse(request: Any, call: RpcCall) -> Any:
        raise Unimplemented(f"{method}: {NOT_YET}")


for _kind in ("System", "Cuda"):
    for _verb in ("Status", "Register", "Unregister"):
        _refuse(f"{_kind}SharedMemory{_verb}")
