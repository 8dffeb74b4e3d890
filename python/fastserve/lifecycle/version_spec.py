"""What the control plane decided about one version, as plain comparable data; and what it found wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastserve import _core
from fastserve.gpu import backends as gpu_backends
from fastserve.lifecycle.labels import Labels
from fastserve.scheduling import Scheduling, core_arguments
from fastserve.worker.registration import KINDS
from fastserve.worker.words import CONFIG_PARAMETER, REASON_PARAMETER


@dataclass(frozen=True)
class TensorShape:
    """Name, OIP datatype ("FP32") and shape, with the batch dimension (-1) in front when the model batches."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class VersionSpec:
    """Everything that a load needs. Two equal specs mean the same load, so an unchanged version is left alone."""

    model: str
    version: int
    backend: str
    path: str = ""  # model file or directory; "" for a backend without files
    max_batch_rows: int = -1  # -1: the backend decides from the model; 0: no batching
    inputs: tuple[TensorShape, ...] = ()  # empty: the model's own
    outputs: tuple[TensorShape, ...] = ()
    scheduling: Scheduling = field(default_factory=Scheduling)
    parameters: tuple[tuple[str, str], ...] = ()  # the backend's own, sorted by name
    labels: Labels = ()
    asked: bytes = b""  # serialized inference.ModelConfig: what config.pbtxt or model.yaml said
    fingerprint: str = ""  # of the files in the version folder
    chosen_because: str = ""  # why another backend than the usual one runs it
    require_manifest: bool = False  # a version without one is refused
    decrypt_hook: str = ""  # what files *.enc are decrypted with; "": they are refused

    def to_core(self) -> _core.LoadSpec:
        return _core.LoadSpec(
            self.model,
            self.version,
            backend=self.backend,
            path=self.path,
            max_batch_rows=self.max_batch_rows,
            inputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in self.inputs],
            outputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in self.outputs],
            parameters=dict(self.parameters) | self._for_worker(),
            labels=dict(self.labels),
            **core_arguments(self.scheduling, self.max_batch_rows),
        )

    def _for_worker(self) -> dict[str, str]:
        """What a loader in Python is told beside the model's parameters: fastserve.worker.process, fastserve.gpu.torch."""
        if self.backend not in (*KINDS, gpu_backends.PYTORCH):
            return {}
        from fastserve.lifecycle.worker_config import worker_config

        return {CONFIG_PARAMETER: worker_config(self)} | (
            {REASON_PARAMETER: self.chosen_because} if self.chosen_because else {}
        )


@dataclass(frozen=True)
class Problem:
    """Why a model (`version` None) or one of its versions cannot be served."""

    model: str
    message: str
    where: str = ""  # "digits/config.pbtxt", relative to the repository; "" = the model's folder
    line: int = 0  # 1-based; 0 = not about a line
    version: int | None = None

    def __str__(self) -> str:
        place = f"{self.where or self.model}:{self.line}" if self.line else (self.where or self.model)
        return f"{place}: {self.message}"
