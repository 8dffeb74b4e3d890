"""fastserve: one model server for OpenVINO and TensorRT, and the engine inside it.

    import numpy as np
    import fastserve

    with fastserve.Engine() as engine:
        engine.load("digits", "models/digits/1/model.onnx")
        scores = engine.infer("digits", {"image": np.zeros((1, 64), np.float32)})["scores"]

The import is light: no gRPC, no event loop, no OpenVINO; a backend is opened when the first model needs it.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from fastserve.engine import (
        Array,
        BackendLoad,
        BackendModel,
        Batch,
        Engine,
        InferFuture,
        Inputs,
        Model,
        Outputs,
        SupportsDLPack,
        Tensor,
        Wanted,
    )
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
    from fastserve.server.embedded import Server

    __version__: str

__all__ = [
    "AlreadyExists",
    "Array",
    "BackendLoad",
    "BackendModel",
    "Batch",
    "Cancelled",
    "DeadlineExceeded",
    "Engine",
    "FailedPrecondition",
    "FastserveError",
    "InferFuture",
    "Inputs",
    "Internal",
    "InvalidArgument",
    "Model",
    "NotFound",
    "OutOfRange",
    "Outputs",
    "PermissionDenied",
    "ResourceExhausted",
    "Server",
    "SupportsDLPack",
    "Tensor",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Wanted",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Names on first use: the command line shows its help without numpy and without the engine."""
    if name == "__version__":
        value: object = _installed_version()
    elif name in {"engine", "errors"}:
        return _import_module(f"fastserve.{name}")
    elif name in __all__:
        value = getattr(_import_module(_module_of(name)), name)
    else:
        raise AttributeError(f"module 'fastserve' has no attribute '{name}'")
    globals()[name] = value
    return value


def _module_of(name: str) -> str:
    if name == "Server":
        return "fastserve.server.embedded"  # needs what the extra [server] installs
    errors = _import_module("fastserve.errors")
    return "fastserve.errors" if hasattr(errors, name) else "fastserve.engine"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fastserve")
    except PackageNotFoundError:  # a source tree that is not installed
        return "0+unknown"
