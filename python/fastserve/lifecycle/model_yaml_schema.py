"""The schema of model.yaml: frozen pydantic models, one a section. Names are those of fastserve.scheduling.

Bounds that depend on other values are in scheduling.faults; these are about single values.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from fastserve.label_text import MAX_WEIGHT
from fastserve.lifecycle.version_labels import MAX_LABELS
from fastserve.scheduling import (
    MAX_DELAY_US,
    MAX_INSTANCES,
    MAX_PRIORITY_LEVELS,
    MAX_REQUESTS,
    MAX_RESOURCE_COUNT,
    MAX_ROWS,
    MAX_TIMEOUT_MS,
    MAX_WARM_UP_RUNS,
    OnTimeout,
)

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
Rows = Annotated[int, Field(ge=1, le=MAX_ROWS)]
Dim = Annotated[int, Field(ge=-1, le=(1 << 62))]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Queue(_Section):
    max_requests: Annotated[int, Field(ge=0, le=MAX_REQUESTS)] = 0
    timeout_ms: Annotated[float, Field(ge=0, le=MAX_TIMEOUT_MS)] = 0.0
    on_timeout: OnTimeout = "reject"
    request_may_lower: bool = True


class Priorities(_Section):
    levels: Annotated[int, Field(ge=1, le=MAX_PRIORITY_LEVELS)]
    default: Annotated[int, Field(ge=0)] = 0
    queues: dict[int, Queue] = {}  # keys left out are those of scheduling.queue


class Scheduling(_Section):
    target_p99_ms: Annotated[float, Field(ge=0, le=MAX_DELAY_US // 1000)] | None = None
    max_queue_delay_us: Annotated[int, Field(ge=0, le=MAX_DELAY_US)] = 0
    preferred_batch_sizes: tuple[Rows, ...] = ()
    allowed_batch_sizes: tuple[Rows, ...] = ()
    max_request_rows: Annotated[int, Field(ge=0, le=MAX_ROWS)] = 0
    preserve_order: bool = False
    queue: Queue = Queue()
    priorities: Priorities | None = None


class Resource(_Section):
    name: Text
    count: Annotated[int, Field(ge=1, le=MAX_RESOURCE_COUNT)] = 1
    is_global: bool = Field(False, alias="global")


def _cpus(value: Any) -> Any:
    return str(value) if type(value) is int else value


# A number, or a UUID: its beginning is enough where only one GPU has it.
GPU_PATTERN = r"^([0-9]{1,3}|(GPU|MIG)-[0-9A-Za-z/-]{1,100})$"


def _gpu(value: Any) -> Any:
    return str(value) if type(value) is int else value


class Instances(_Section):
    count: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 1
    name: str = ""
    cpus: Annotated[str, BeforeValidator(_cpus)] = ""  # "0-3,8"
    host_policy: str = ""  # one of --host-policy
    kind: Literal["auto", "cpu", "gpu"] = "auto"  # auto: as the backend wants; a GPU where `gpus` names one
    gpus: tuple[
        Annotated[str, BeforeValidator(_gpu), StringConstraints(pattern=GPU_PATTERN)], ...
    ] = ()  # `count` on each
    resources: tuple[Resource, ...] = ()
    rate_priority: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


def _groups(value: Any) -> Any:
    """`instances: 2`."""
    return ({"count": value},) if type(value) is int else value


class Tensor(_Section):
    name: Text
    datatype: Datatype
    dims: tuple[Dim, ...]  # without the batch dimension when the model batches; -1: any


class Input(Tensor):
    format: Literal["NHWC", "NCHW"] | None = None


class Output(Tensor):
    labels: str = ""  # a file in the model's folder


class WarmUpInput(_Section):
    datatype: Datatype
    dims: tuple[Dim, ...]
    fill: Literal["zero", "random"] | None = None  # zero, where there is no file
    file: str = ""  # in the model's folder `warmup`: one row


class WarmUp(_Section):
    name: str = ""
    batch_size: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 1
    count: Annotated[int, Field(ge=1, le=MAX_WARM_UP_RUNS)] = 1
    inputs: dict[str, WarmUpInput]


class Versions(_Section):
    """One of them: latest: 2, specific: [1, 3], or the word `all` instead of a mapping."""

    latest: Annotated[int, Field(ge=1, lt=1 << 32)] | None = None
    specific: tuple[Annotated[int, Field(ge=1, lt=1 << 62)], ...] | None = None
    all: bool = False


def _versions(value: Any) -> Any:
    return {"all": True} if value == "all" else value


LabelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")]
LabelVersion = Annotated[int, Field(ge=1, lt=1 << 62)]
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]


def _weighted(value: Any) -> Any:
    """`stable: 3`."""
    return {value: 1} if type(value) is int else value


class ModelYaml(_Section):
    name: str = ""  # the folder's, where it is given
    backend: str = ""
    file: str = ""  # in the version's folder
    max_batch_size: Annotated[int, Field(ge=0, lt=1 << 31)] = (
        0  # not written, and no inputs: the model decides
    )
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    versions: Annotated[Versions, BeforeValidator(_versions)] = Versions()
    version_labels: Annotated[
        dict[LabelName, Annotated[dict[LabelVersion, Weight], BeforeValidator(_weighted)]],
        Field(max_length=MAX_LABELS),
    ] = {}
    scheduling: Scheduling = Scheduling()
    instances: Annotated[tuple[Instances, ...], BeforeValidator(_groups)] = ()
    response_cache: bool = False
    warm_up: tuple[WarmUp, ...] = ()
    parameters: dict[str, str] = {}  # the backend's own; numbers and words as they are written
