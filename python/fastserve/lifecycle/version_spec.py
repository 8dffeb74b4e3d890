"""What the control plane decided about one version, as plain comparable data; and what it found wrong."""

from __future__ import annotations

from dataclasses import dataclass

from fastserve import _core
from fastserve.lifecycle.labels import Labels


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
    instance_count: int = 0  # 0: the backend's default
    max_queue_delay_us: int = 0
    max_queue_requests: int = 0  # 0: the engine's default
    preferred_rows: tuple[int, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()  # the backend's own, sorted by name
    labels: Labels = ()
    asked: bytes = b""  # serialized inference.ModelConfig: what config.pbtxt said
    fingerprint: str = ""  # of the files in the version folder

    def to_core(self) -> _core.LoadSpec:
        return _core.LoadSpec(
            self.model,
            self.version,
            backend=self.backend,
            path=self.path,
            max_batch_rows=self.max_batch_rows,
            inputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in self.inputs],
            outputs=[_core.TensorSpec(t.name, t.datatype, t.shape, t.optional) for t in self.outputs],
            instance_count=self.instance_count,
            max_queue_delay_us=self.max_queue_delay_us,
            max_queue_requests=self.max_queue_requests,
            preferred_rows=self.preferred_rows,
            parameters=dict(self.parameters),
            labels=dict(self.labels),
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
