"""What Client and AsyncClient share: arguments -> calls, deadlines, the decision to try again. Pure but for the clock."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastserve.client.calls import Call, Load
from fastserve.client.failure import AttemptFailed
from fastserve.client.infer_call import InferCall, infer_call
from fastserve.client.result import ModelMetadata, Parameter
from fastserve.client.settings import Settings
from fastserve.client.tensors import Input, Output
from fastserve.errors import FastserveError, InvalidArgument, Unimplemented

UNSET: Any = object()  # `timeout` not given: the client's
Inputs = Any  # ndarray | Input | Mapping[str, ndarray | Input]; numpy's stubs make the exact type of no use to callers


@dataclass(frozen=True)
class Request:
    """One request of `stream_all`: the arguments of `infer`."""

    model: str
    inputs: Mapping[str, Any]
    version: str | int = ""
    outputs: Sequence[str | Output] | None = None
    id: str = ""
    priority: int | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def call(self) -> InferCall:
        return infer_call(
            self.model,
            self.inputs,
            version=self.version,
            outputs=self.outputs,
            id=self.id,
            priority=self.priority,
            parameters=self.parameters,
        )


def deadline_of(settings: Settings, timeout: Any) -> tuple[float | None, float | None]:
    """(timeout, deadline on time.monotonic()), both None without one."""
    seconds = settings.timeout if timeout is UNSET else timeout
    if seconds is None:
        return None, None
    if seconds <= 0:
        raise InvalidArgument(f"timeout: got {seconds}, expected more than 0 seconds, or None")
    return float(seconds), time.monotonic() + seconds


def pause_before_retry(
    settings: Settings, attempt: int, failed: AttemptFailed, idempotent: bool, deadline: float | None
) -> float:
    """Seconds. Raises the caller's error when there is no other attempt."""
    pause = settings.retry.delay(
        attempt,
        failed.fate,
        idempotent=idempotent,
        now=time.monotonic(),
        deadline=deadline,
        chance=random.random(),
    )
    if pause is None:
        raise failed.error from None
    return pause


def is_mapping(inputs: Inputs) -> bool:
    return isinstance(inputs, Mapping)


def named(inputs: Inputs, metadata: ModelMetadata) -> dict[str, Any]:
    """A bare array is the model's only input."""
    if len(metadata.inputs) != 1:
        names = ", ".join(tensor.name for tensor in metadata.inputs)
        raise InvalidArgument(
            f"inputs: got one array, but model '{metadata.name}' has several inputs: {names}"
        )
    (only,) = metadata.inputs
    bits_of_bf16 = only.datatype == "BF16" and not isinstance(inputs, Input)
    return {only.name: Input(inputs, "BF16") if bits_of_bf16 else inputs}


def load_call(model: str, config: str | Mapping[str, Any] | None, files: Mapping[str, bytes] | None) -> Load:
    text = config if isinstance(config, str) else json.dumps(config) if config else ""
    if files and not text:
        raise InvalidArgument('parameters["config"]: files are given without a config')
    return Load(model, text, files)


def lists_binary(extensions: Iterable[str]) -> bool:
    return any(name.startswith("binary_tensor_data") for name in extensions)


def no_streams() -> FastserveError:
    return Unimplemented("streams are gRPC's: open the client with grpc://host:port")


def calls_of(requests: Iterable[Request]) -> Iterable[Call[Any]]:
    return (request.call() for request in requests)
