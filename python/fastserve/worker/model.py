"""What a model is inside a worker process, and how one is opened.

The process (process.py) makes one ModelSpec, calls `open_model` once and `execute` once for each batch, on its main
thread. What a kind needs (numpy aside) is imported when the first model of that kind is opened.

    python        model.py of the user: TritonPythonModel (models/triton_model.py) or @model (models/simple.py)
    onnxruntime   models/onnx_runtime.py
    pytorch       models/torch_models.py: TorchScript and torch.export
"""

from __future__ import annotations

import importlib
from collections.abc import ItemsView, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fastserve import errors
from fastserve.worker.words import REASON_PARAMETER

__all__ = [
    "Answer",
    "Array",
    "CallResult",
    "Calls",
    "Description",
    "ModelSpec",
    "Request",
    "TensorSpec",
    "WorkerModel",
    "open_model",
]

Array = np.ndarray[Any, np.dtype[Any]]
Parameter = bool | int | float | str

# kind -> module with `open_model(spec, calls) -> WorkerModel`.
_KINDS = {
    "python": "fastserve.worker.models.user_code",
    "onnxruntime": "fastserve.worker.models.onnx_runtime",
    "pytorch": "fastserve.worker.models.torch_models",
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the server asks a worker to open."""

    model: str
    version: int
    folder: str  # the version's: <repository>/<model>/<version>
    repository: str  # the model's: <repository>/<model>
    kind: str  # a key of _KINDS
    config: dict[str, Any]  # Triton's model configuration as JSON has it
    parameters: dict[str, str]
    instance: int  # 0, 1, ... of this model
    instance_name: str
    threads: int  # CPU threads that this instance may use; 0: nobody said


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output. The rows stand in front as -1 where the model batches."""

    name: str
    datatype: str  # "FP32", "BYTES", ...
    shape: list[int]  # -1: any
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What the model says about itself once it is open."""

    max_batch_rows: int  # 0: no batching, one request at a time is fine
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    properties: dict[str, str] = field(default_factory=dict)  # for people: device, precision, threads, ...
    platform: str = ""


@dataclass(slots=True)
class Request:
    """One request of a batch. Input arrays are views that end with `execute`: copy what is to be kept."""

    id: str
    inputs: dict[str, Array]  # BYTES: object array of bytes; BF16: float32, which numpy has
    outputs: tuple[str, ...] = ()  # wanted; (): all
    parameters: dict[str, Parameter] = field(default_factory=dict)
    priority: int = 0
    timeout_us: int = 0
    correlation_id: int | str = 0


@dataclass(slots=True)
class Answer:
    """To one request: outputs, or an error of gRPC's code and a text."""

    outputs: dict[str, Array] = field(default_factory=dict)
    error: tuple[int, str] | None = None
    parameters: dict[str, Parameter] | None = None  # beside the outputs, for the client; at most 64


class WorkerModel(Protocol):
    """An open model. One thread calls it."""

    def describe(self) -> Description: ...
    def execute(self, requests: list[Request]) -> list[Answer]:
        """One answer for each request, in their order. An exception fails all of them (INTERNAL)."""

    def finalize(self) -> None: ...


class CallResult(Protocol):
    """{name: array}, and what the other model said beside its outputs."""

    parameters: dict[str, Parameter]

    def items(self) -> ItemsView[str, Array]: ...
    def __getitem__(self, name: str, /) -> Array: ...


class Calls(Protocol):
    """Calls to other models of the same server, from inside a model. Any thread."""

    def infer(
        self,
        model: str,
        version: int,  # 0: the latest
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
        priority: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
    ) -> CallResult:
        """Raises fastserve.errors.*."""


def open_model(spec: ModelSpec, calls: Calls | None) -> WorkerModel:
    """Imports, completes the configuration, initializes. InvalidArgument, Unimplemented, or what the user's code raises."""
    module = _KINDS.get(spec.kind)
    if module is None:
        raise errors.InvalidArgument(f"backend: got '{spec.kind}', want one of {', '.join(_KINDS)}")
    reason = spec.parameters.pop(REASON_PARAMETER, "")
    opened: WorkerModel = importlib.import_module(module).open_model(spec, calls)
    if reason:
        opened.describe().properties["chosen_because"] = reason
    return opened
