"""What Triton's ModelConfig says about GPUs -> knobs of the GPU lane, which are parameters of the backends that it captures.

    instance_group.kind                     KIND_GPU, KIND_CPU, KIND_AUTO (with `gpus`: a GPU; else as the backend wants)
    instance_group.profile                  profiles: those of the plan that are used
    parameters gpus                         "GPU-5f...,MIG-...": by UUID, for groups on GPUs without numbers of their own
    optimization.cuda.graphs                graphs: on, off (not said: on)
    optimization.cuda.busy_wait_events      completion: poll, blocking (not said: poll)
    optimization.priority                   stream_priority: the highest for PRIORITY_MAX
    gpu_execution_accelerator "tensorrt"    of onnxruntime on a GPU: backend tensorrt builds the ONNX file
A parameter of the same name in `parameters` goes before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastserve.gpu import backends as gpu_backends
from fastserve.lifecycle.pbtxt import Positions, TextError

GPUS = "gpus"  # a parameter: ours, not the backend's
_PRIORITY_MAX = 1
_MOST_PRIORITY = "31"  # cut off at the highest that the device has

_ACCELERATORS = "optimization.execution_accelerators.gpu_execution_accelerator"
_PRECISION = {"FP32": "model", "FP16": "fp16", "BF16": "bf16"}
# Parameter of Triton's accelerator -> ours.
_SAME = {
    "max_workspace_size_bytes": "workspace_bytes",
    "trt_max_workspace_size": "workspace_bytes",
    "trt_builder_optimization_level": "optimization_level",
}
# Without meaning here: plans are always kept, and the whole model is one plan.
_IDLE = frozenset(
    {
        "max_cached_engines",
        "minimum_segment_size",
        "is_dynamic_op",
        "trt_engine_cache_enable",
        "trt_timing_cache_enable",
        "trt_cuda_graph_enable",
    }
)


def gpu_words(text: str) -> tuple[str, ...]:
    """ "0, GPU-5f...": numbers and UUIDs."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


class TritonGpu:
    """One message with its positions."""

    def __init__(self, message: Any, positions: Positions) -> None:
        self._message, self._positions = message, positions
        groups = list(message.instance_group)
        self._kinds = [
            "KIND_GPU" if group.gpus and not group.kind else group.Kind.Name(group.kind) for group in groups
        ]

    @property
    def on_gpu(self) -> bool:
        return "KIND_GPU" in self._kinds

    @property
    def on_cpu(self) -> bool:
        """Said, not left to the backend."""
        return "KIND_CPU" in self._kinds

    def backend(self, backend: str) -> str:
        """That is to run it, where `backend` is asked for."""
        accelerated = self.on_gpu and any(a.name == "tensorrt" for a in self._accelerators())
        return gpu_backends.TENSORRT if backend == "onnxruntime" and accelerated else backend

    def parameters(self) -> dict[str, str]:
        """For a captured backend."""
        cuda = ("optimization", 0, "cuda", 0)
        settings = self._message.optimization
        found = {}
        if self._positions.has(*cuda, "graphs"):
            found["graphs"] = "on" if settings.cuda.graphs else "off"
        if self._positions.has(*cuda, "busy_wait_events"):
            found["completion"] = "poll" if settings.cuda.busy_wait_events else "blocking"
        if settings.priority == _PRIORITY_MAX:
            found["stream_priority"] = _MOST_PRIORITY
        profiles = [number for group in self._message.instance_group for number in group.profile]
        if profiles:
            found["profiles"] = ",".join(dict.fromkeys(profiles))
        for accelerator in self._accelerators():
            found |= self._of_accelerator(accelerator.parameters)
        return found

    def errors(self) -> Iterator[TextError]:
        yield from self._group_errors()
        for index, accelerator in enumerate(self._accelerators()):
            at = (
                "optimization",
                0,
                "execution_accelerators",
                0,
                "gpu_execution_accelerator",
                index,
            )
            if not self.on_gpu:
                continue  # Triton's rule: it is for instances on GPUs
            if accelerator.name != "tensorrt":
                yield self._error(
                    f"{_ACCELERATORS}: '{accelerator.name}' is not supported (only tensorrt)", *at
                )
                continue
            for name, value in sorted(accelerator.parameters.items()):
                if name == "precision_mode" and value not in _PRECISION:
                    want = ", ".join(_PRECISION)
                    yield self._error(f"{_ACCELERATORS}: precision_mode: got '{value}', want {want}", *at)
                elif name != "precision_mode" and name not in _SAME and name not in _IDLE:
                    known = ", ".join(sorted({"precision_mode", *_SAME, *_IDLE}))
                    yield self._error(
                        f"{_ACCELERATORS}: '{name}' is not supported yet, there are {known}", *at
                    )

    def notes(self) -> Iterator[str]:
        if self._message.optimization.cuda.graph_spec and self.on_gpu:
            yield (
                "optimization.cuda.graph_spec is without effect: every prepared batch size has a graph; parameter "
                "allowed_batch_sizes says which there are"
            )

    def _group_errors(self) -> Iterator[TextError]:
        given = GPUS in self._message.parameters
        for index, (group, kind) in enumerate(zip(self._message.instance_group, self._kinds, strict=True)):
            if kind != "KIND_GPU" and self.on_gpu:
                yield self._error(
                    f"instance_group: {kind} beside KIND_GPU, want one kind", "instance_group", index, "kind"
                )
            elif group.gpus and kind != "KIND_GPU":
                yield self._error(
                    f"instance_group: gpus goes with KIND_GPU, got {kind}", "instance_group", index, "gpus"
                )
            elif bad := [number for number in group.profile if not number.isdecimal()]:
                yield self._error(
                    f"instance_group.profile: got '{bad[0]}', want the number of an optimisation profile",
                    *("instance_group", index, "profile"),
                )
        if given and not gpu_words(self._message.parameters[GPUS].string_value):
            line = self._positions.line_of_key("parameters", GPUS)
            yield TextError(line, f"parameters: {GPUS}: got none, want numbers or UUIDs such as GPU-5f...")
        if given and self._kinds and not self.on_gpu:
            line = self._positions.line_of_key("parameters", GPUS)
            yield TextError(line, f"parameters: {GPUS} goes with KIND_GPU, got {self._kinds[0]}")

    def _accelerators(self) -> list[Any]:
        return list(self._message.optimization.execution_accelerators.gpu_execution_accelerator)

    def _of_accelerator(self, given: Mapping[str, str]) -> dict[str, str]:
        found = {_SAME[name]: value for name, value in given.items() if name in _SAME}
        if (mode := given.get("precision_mode")) in _PRECISION:
            found["precision"] = _PRECISION[mode or ""]
        return found

    def _error(self, message: str, *path: str | int) -> TextError:
        return TextError(self._positions.line(*path), message)
