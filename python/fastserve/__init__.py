"""fastserve: one model server for OpenVINO and TensorRT, and the engine inside it.

    import numpy as np
    import fastserve

    with fastserve.Engine() as engine:
        engine.load("digits", "models/digits/1/model.onnx")
        scores = engine.infer("digits", {"image": np.zeros((1, 64), np.float32)})["scores"]

The import is light: no gRPC, no event loop, no OpenVINO; a backend is opened when the first model needs it.
"""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from fastserve.engine import Engine, Model, Tensor
from fastserve.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FastserveError,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

try:
    __version__ = _version("fastserve")
except _PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "DeadlineExceeded",
    "Engine",
    "FailedPrecondition",
    "FastserveError",
    "Internal",
    "InvalidArgument",
    "Model",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Tensor",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "__version__",
]
