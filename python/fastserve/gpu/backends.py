"""Which backend runs a model on a GPU (instance_group KIND_GPU), and the graph backends of an engine.

    configuration   KIND_CPU                      KIND_GPU
    pytorch         worker processes              "pytorch_gpu": captured, in this process (fastserve.gpu.torch)
    tensorrt        refused                       "tensorrt": captured, in this process (fastserve.gpu.tensorrt)
    onnxruntime     worker processes              worker processes with its CUDA provider: no graphs, batch by batch

Imports neither torch nor TensorRT nor a driver: the first model does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastserve import _core, errors
from fastserve.gpu.source import GraphLoad, GraphModel, add_graph_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTORCH = "pytorch_gpu"  # the engine's name of it; configurations say "pytorch"
TENSORRT = "tensorrt"
_CAPTURED = {"pytorch": PYTORCH, "tensorrt": TENSORRT}
CAPTURED = frozenset(_CAPTURED.values())  # their models run on the lane and take its parameters
_WORKERS = ("onnxruntime",)


def on_gpu(backend: str, gpus: Sequence[str]) -> tuple[str, dict[str, str]]:
    """(the engine's backend, parameters that it needs) for a KIND_GPU group. `gpus`: ordinals or UUIDs; () = not said.

    InvalidArgument: this backend has no GPU side. FailedPrecondition: this build has no GPU lane."""
    if backend in _WORKERS:
        if len(gpus) > 1 or not all(gpu.isdecimal() for gpu in gpus):
            raise errors.InvalidArgument(
                f"instance_group.gpus: got {', '.join(gpus)}; {backend} runs on one GPU, by its number"
            )
        return backend, {"device": f"cuda:{gpus[0]}" if gpus else "cuda"}
    if backend not in _CAPTURED:
        raise errors.InvalidArgument(
            f"instance_group: KIND_GPU, but {backend or 'this backend'} runs on the CPU"
        )
    if not has_lane():
        why = f"backend {backend} needs a GPU" if backend == TENSORRT else "instance_group: KIND_GPU"
        raise errors.FailedPrecondition(f"{why}, but fastserve was built without the GPU lane")
    return _CAPTURED[backend], {}


def has_lane() -> bool:
    """Whether this build has the GPU lane; the machine may have no GPU all the same."""
    return bool(getattr(_core, "has_gpu_lane", False))


def register(core: _core.Engine) -> None:
    """Makes the captured backends known to an engine; nothing where this build has no GPU lane."""
    if has_lane():
        add_graph_backend(core, PYTORCH, _open_pytorch)
        add_graph_backend(core, TENSORRT, _open_tensorrt)


def _open_pytorch(load: GraphLoad) -> GraphModel:
    from fastserve.gpu.torch.open_model import open_model

    return open_model(load)


def _open_tensorrt(load: GraphLoad) -> GraphModel:
    from fastserve.gpu.tensorrt.open_model import open_model

    return open_model(load)
