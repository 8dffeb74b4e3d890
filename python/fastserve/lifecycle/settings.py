"""What a model's configuration asks for, as plain data: the same from config.pbtxt and from model.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fastserve import protos
from fastserve.errors import InvalidArgument
from fastserve.gpu import backends as gpu_backends
from fastserve.lifecycle.batching_parameters import BatchingParameters
from fastserve.lifecycle.host_policy import CPU_POLICY
from fastserve.lifecycle.labels import LabelFile, Labels
from fastserve.lifecycle.version_spec import TensorShape, VersionSpec
from fastserve.lifecycle.warm_up_files import WarmUpFile
from fastserve.scheduling import Instances, Scheduling

VersionLabelMap = tuple[tuple[str, tuple[tuple[int, float], ...]], ...]  # label -> version -> weight; sorted


@dataclass(frozen=True)
class ModelDefaults:
    """What the server says for every model that does not say it itself."""

    backend_parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by backend
    target_p99_ms: float = 0.0  # 0: none
    host_policies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # name -> CPUs
    batching: BatchingParameters | None = None  # --batching-parameters-file
    require_manifest: bool = False
    decrypt_hook: str = ""  # protected.py


@dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions that are there are served."""

    latest: int = 1  # so many of the highest; 0 = all
    specific: tuple[int, ...] = ()  # exactly these, when not empty


@dataclass(frozen=True)
class Settings:
    """What holds for every version of a model. `backend` "": by the name of the model file."""

    model: str
    backend: str = ""
    file_name: str = ""  # in the version directory; "": the backend's usual names
    max_batch_rows: int = -1
    inputs: tuple[TensorShape, ...] = ()
    outputs: tuple[TensorShape, ...] = ()
    version_policy: VersionPolicy = VersionPolicy()
    scheduling: Scheduling = field(default_factory=Scheduling)
    on_gpu: bool = False  # instance_group of KIND_GPU
    on_cpu: bool = False  # of KIND_CPU, said and not only the default
    lane: tuple[tuple[str, str], ...] = ()  # parameters of backends that the GPU lane captures
    parameters: tuple[tuple[str, str], ...] = ()
    label_files: tuple[LabelFile, ...] = ()
    labels: Labels = ()  # what was read from them
    version_labels: VersionLabelMap = ()
    warm_up_files: tuple[WarmUpFile, ...] = ()  # whose content goes into scheduling.warm_up
    asked: bytes = b""
    notes: tuple[str, ...] = ()  # for the log: what was accepted and runs otherwise than it says

    def version_spec(self, version: int, backend: str, path: str, defaults: ModelDefaults) -> VersionSpec:
        """InvalidArgument, FailedPrecondition: it is to run on a GPU, and the backend or this build cannot."""
        scheduling = self.scheduling
        if scheduling.target_p99_ms is None:
            scheduling = replace(scheduling, target_p99_ms=defaults.target_p99_ms)
        on_gpu = self.on_gpu or backend == gpu_backends.TENSORRT
        if not on_gpu and not scheduling.instances and (cpus := defaults.host_policies.get(CPU_POLICY)):
            # As many as the backend wants.
            scheduling = replace(scheduling, instances=(Instances(count=0, cpus=cpus),))
        more: dict[str, str] = {}
        if self.on_cpu and backend == gpu_backends.TENSORRT:
            raise InvalidArgument(
                f"instance_group: got KIND_CPU, want KIND_GPU: backend {backend} has no CPU side"
            )
        if on_gpu:
            gpus = [group.gpu for group in scheduling.instances if group.gpu]
            backend, more = gpu_backends.on_gpu(backend, gpus)
            more |= dict(self.lane) if backend in gpu_backends.CAPTURED else {}
        parameters = dict(defaults.backend_parameters.get(backend, {})) | more | dict(self.parameters)
        return VersionSpec(
            model=self.model,
            version=version,
            backend=backend,
            path=path,
            max_batch_rows=self.max_batch_rows,
            inputs=self.inputs,
            outputs=self.outputs,
            scheduling=scheduling,
            parameters=tuple(sorted(parameters.items())),
            labels=self.labels,
            asked=self.asked,
            require_manifest=defaults.require_manifest,
            decrypt_hook=defaults.decrypt_hook,
        )


def without_config(model: str) -> Settings:
    """Settings of a model that has no configuration: everything comes from the model file."""
    return Settings(
        model, asked=protos.message_class("inference.ModelConfig")(name=model).SerializeToString()
    )
