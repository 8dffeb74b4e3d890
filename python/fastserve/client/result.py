"""What the calls of the client return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastserve.client.tensors import Array

Parameter = bool | int | float | str


class Result(Mapping[str, Array]):
    """The outputs of one inference: `result["scores"]` is a numpy array, `dict(result)` all of them.

    Arrays of fixed-size datatypes are read-only views of the received bytes (`.copy()` for one to write to).
    """

    def __init__(
        self,
        outputs: Mapping[str, Array],
        *,
        datatypes: Mapping[str, str],
        model: str = "",
        model_version: str = "",
        id: str = "",
        parameters: Mapping[str, Parameter] | None = None,
    ) -> None:
        self._outputs = dict(outputs)
        self.datatypes = dict(datatypes)  # output -> "FP32"
        self.model = model
        self.model_version = model_version  # the one that answered
        self.id = id
        self.parameters = dict(parameters or {})

    def __getitem__(self, name: str) -> Array:
        try:
            return self._outputs[name]
        except KeyError:
            raise KeyError(f"no output '{name}'; there are {', '.join(self._outputs) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def final(self) -> bool | None:
        """On streams: the last answer to its request; None where the server did not say."""
        value = self.parameters.get("triton_final_response")
        return None if value is None else bool(value)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}: {self.datatypes[name]}{list(a.shape)}" for name, a in self._outputs.items()
        )
        return f"<Result of {self.model} version {self.model_version}: {shown}>"


@dataclass(frozen=True)
class TensorMetadata:
    """Shape: -1 = any; the batch dimension in front where the model batches."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelMetadata:
    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


@dataclass(frozen=True)
class ServerMetadata:
    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class IndexEntry:
    """One line of the repository's index. `version` is empty for a model that has none ready."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Total:
    """How often and how long in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class ModelStatistics:
    """Counters since the version was loaded. One execution answers a batch of inferences."""

    name: str
    version: str
    inference_count: int = 0  # rows
    execution_count: int = 0  # batches
    last_inference_ms: int = 0  # since 1970
    totals: Mapping[str, Total] = field(
        default_factory=dict
    )  # success fail queue compute_input _infer _output ...
    batches: Mapping[int, Mapping[str, Total]] = field(default_factory=dict)  # batch size -> compute_* totals

    def total(self, name: str) -> Total:
        return self.totals.get(name, Total())


def model_metadata(document: Mapping[str, Any]) -> ModelMetadata:
    return ModelMetadata(
        str(document.get("name", "")),
        tuple(str(version) for version in document.get("versions") or ()),
        str(document.get("platform") or ""),
        _tensors(document.get("inputs")),
        _tensors(document.get("outputs")),
    )


def _tensors(described: Any) -> tuple[TensorMetadata, ...]:
    return tuple(
        TensorMetadata(
            str(t["name"]), str(t.get("datatype", "")), tuple(int(d) for d in t.get("shape") or ())
        )
        for t in described or ()
    )


def server_metadata(document: Mapping[str, Any]) -> ServerMetadata:
    extensions = tuple(str(extension) for extension in document.get("extensions") or ())
    return ServerMetadata(str(document.get("name", "")), str(document.get("version", "")), extensions)


def index_entries(documents: Any) -> list[IndexEntry]:
    fields = ("name", "version", "state", "reason")
    return [IndexEntry(*(str(document.get(name) or "") for name in fields)) for document in documents or ()]


def model_statistics(document: Mapping[str, Any]) -> list[ModelStatistics]:
    return [_statistics(entry) for entry in document.get("model_stats") or ()]


def _statistics(entry: Mapping[str, Any]) -> ModelStatistics:
    batches = {int(b.get("batch_size", 0)): _totals(b) for b in entry.get("batch_stats") or ()}
    return ModelStatistics(
        str(entry.get("name", "")),
        str(entry.get("version", "")),
        int(entry.get("inference_count") or 0),
        int(entry.get("execution_count") or 0),
        int(entry.get("last_inference") or 0),
        _totals(entry.get("inference_stats") or {}),
        batches,
    )


def _totals(document: Mapping[str, Any]) -> dict[str, Total]:
    return {
        name: Total(int(value.get("count") or 0), int(value.get("ns") or 0))
        for name, value in document.items()
        if isinstance(value, Mapping)
    }
