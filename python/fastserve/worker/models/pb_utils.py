"""What users' models import as `triton_python_backend_utils`: the names of Triton's module, in a worker process.

Not there, and said so when asked for: decoupled responses, metrics of the model's own, loading and unloading of models, GPU
tensors. `Logger` writes to stderr, whose lines go into the server's log.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fastserve.worker.models.pb_config import (
    ModelConfig,
    get_input_config_by_name,
    get_output_config_by_name,
    using_decoupled_model_transaction_policy,
)
from fastserve.worker.models.pb_request import (
    InferenceRequest,
    InferenceResponse,
    PreferredMemory,
    TritonError,
    TritonModelException,
    _calls,
)
from fastserve.worker.models.pb_tensor import (
    DataType,
    Tensor,
    deserialize_bytes_tensor,
    numpy_to_triton_type,
    serialize_byte_tensor,
    triton_string_to_numpy,
    triton_to_numpy_type,
)

if TYPE_CHECKING:
    from fastserve.worker.model import Calls, ModelSpec

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_CPU_PINNED",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "DataType",
    "InferenceRequest",
    "InferenceResponse",
    "Logger",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "using_decoupled_model_transaction_policy",
]

TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_CPU_PINNED = 1
TRITONSERVER_MEMORY_GPU = 2
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2

_folder = [""]


def bind(spec: ModelSpec, calls: Calls | None) -> None:
    """Before a model is imported: whom its calls go through, and where it lies."""
    _calls[0] = calls
    _folder[0] = spec.folder


def get_model_dir() -> str:
    """The version's folder."""
    return _folder[0]


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    return next((tensor for tensor in inference_request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """TritonModelException when the response is an error."""
    if (error := inference_response.error()) is not None:
        raise TritonModelException(error.message())
    return next((tensor for tensor in inference_response.output_tensors() if tensor.name() == name), None)


class Logger:
    """One line of stderr each."""

    INFO, WARNING, ERROR, VERBOSE = "INFO", "WARNING", "ERROR", "VERBOSE"

    @staticmethod
    def log(message: str, level: str = INFO) -> None:
        sys.stderr.write(f"{level}: {message}\n")
        sys.stderr.flush()

    @classmethod
    def log_info(cls, message: str) -> None:
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        cls.log(message, cls.VERBOSE)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"triton_python_backend_utils.{name} is not supported by fastserve")
