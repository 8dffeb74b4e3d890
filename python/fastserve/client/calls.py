"""One API call as both protocols carry it. Pure: the four transports send what a Call makes, and give it what came back.

A Call makes its gRPC message (`message`, a protobuf object of inference.GRPCInferenceService, whose method is `rpc`) and
its HTTP request (`http`), and reads either answer into the same value T. HTTP answers reach `from_http` only with a
status that `accepts` allows.
"""

from __future__ import annotations

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import quote

from fastserve.client import result
from fastserve.client.http11 import HttpResponse
from fastserve.errors import InvalidArgument, Unimplemented, from_code

T = TypeVar("T")
SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True)
class HttpRequest:
    """`parts` of the body are sent one after the other. `path` without the address's prefix."""

    method: str
    path: str
    parts: tuple[bytes | memoryview, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body_bytes(self) -> int:
        return sum(len(part) for part in self.parts)


class Call(ABC, Generic[T]):
    rpc: ClassVar[str]
    idempotent: ClassVar[bool] = True  # asking twice does no harm

    @abstractmethod
    def message(self) -> Any: ...

    @abstractmethod
    def from_message(self, message: Any) -> T: ...

    @abstractmethod
    def http(self) -> HttpRequest: ...

    @abstractmethod
    def from_http(self, response: HttpResponse) -> T: ...

    def accepts(self, status: int) -> bool:
        return status == 200


def new_message(name: str, /, **fields: Any) -> Any:
    """A message of package inference."""
    from fastserve import protos

    return protos.message_class(f"inference.{name}")(**fields)


def model_path(model: str, version: str = "") -> str:
    if not model:
        raise InvalidArgument("model: got an empty name")
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def json_of(response: HttpResponse) -> Any:
    try:
        return json.loads(response.body)
    except ValueError:
        raise from_code(2, f"the server's answer is not JSON: {response.body[:80]!r}") from None


def plain(message: Any) -> dict[str, Any]:
    """A protobuf message as the JSON of Triton's REST API has it: fields by their .proto names, absent ones left out,
    64-bit integers as numbers (protobuf's own JSON makes them strings)."""
    return {field.name: _plain(field, value) for field, value in message.ListFields()}


def _plain(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name["value"]
        return {str(key): _plain_one(entry, item) for key, item in value.items()}
    if field.is_repeated:
        return [_plain_one(field, item) for item in value]
    return _plain_one(field, value)


def _plain_one(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        found = field.enum_type.values_by_number.get(value)
        return found.name if found else value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


@dataclass(frozen=True)
class Ready(Call[bool]):
    """Server live, server ready (no model) or model ready. `ServerLive` where `live`."""

    rpc = "ServerReady"
    model: str = ""
    version: str = ""

    def message(self) -> Any:
        return new_message(f"{self.rpc}Request")

    def from_message(self, message: Any) -> bool:
        return bool(message.ready)

    def http(self) -> HttpRequest:
        return HttpRequest("GET", "/v2/health/ready")

    def from_http(self, response: HttpResponse) -> bool:
        return response.status == 200

    def accepts(self, status: int) -> bool:
        # Triton says no with 400, KServe and OpenVINO Model Server with 503, most with 404 for an unknown model.
        return status in {200, 400, 404, 503}


class Live(Ready):
    rpc = "ServerLive"

    def from_message(self, message: Any) -> bool:
        return bool(message.live)

    def http(self) -> HttpRequest:
        return HttpRequest("GET", "/v2/health/live")


class ModelReady(Ready):
    rpc = "ModelReady"

    def message(self) -> Any:
        return new_message("ModelReadyRequest", name=self.model, version=self.version)

    def http(self) -> HttpRequest:
        return HttpRequest("GET", model_path(self.model, self.version) + "/ready")


class ServerMetadata(Call[result.ServerMetadata]):
    rpc = "ServerMetadata"

    def message(self) -> Any:
        return new_message("ServerMetadataRequest")

    def from_message(self, message: Any) -> result.ServerMetadata:
        return result.server_metadata(plain(message))

    def http(self) -> HttpRequest:
        return HttpRequest("GET", "/v2")

    def from_http(self, response: HttpResponse) -> result.ServerMetadata:
        return result.server_metadata(json_of(response))


@dataclass(frozen=True)
class ModelMetadata(Call[result.ModelMetadata]):
    rpc = "ModelMetadata"
    model: str
    version: str = ""

    def message(self) -> Any:
        return new_message("ModelMetadataRequest", name=self.model, version=self.version)

    def from_message(self, message: Any) -> result.ModelMetadata:
        return result.model_metadata(plain(message))

    def http(self) -> HttpRequest:
        return HttpRequest("GET", model_path(self.model, self.version))

    def from_http(self, response: HttpResponse) -> result.ModelMetadata:
        return result.model_metadata(json_of(response))


@dataclass(frozen=True)
class ModelConfig(Call[dict[str, Any]]):
    rpc = "ModelConfig"
    model: str
    version: str = ""

    def message(self) -> Any:
        return new_message("ModelConfigRequest", name=self.model, version=self.version)

    def from_message(self, message: Any) -> dict[str, Any]:
        return plain(message.config)

    def http(self) -> HttpRequest:
        return HttpRequest("GET", model_path(self.model, self.version) + "/config")

    def from_http(self, response: HttpResponse) -> dict[str, Any]:
        return dict(json_of(response))


@dataclass(frozen=True)
class Statistics(Call[list[result.ModelStatistics]]):
    rpc = "ModelStatistics"
    model: str = ""
    version: str = ""

    def message(self) -> Any:
        return new_message("ModelStatisticsRequest", name=self.model, version=self.version)

    def from_message(self, message: Any) -> list[result.ModelStatistics]:
        return result.model_statistics(plain(message))

    def http(self) -> HttpRequest:
        path = model_path(self.model, self.version) if self.model else "/v2/models"
        return HttpRequest("GET", f"{path}/stats")

    def from_http(self, response: HttpResponse) -> list[result.ModelStatistics]:
        return result.model_statistics(json_of(response))


class _OwnRoute(Call[T]):
    """A route of fastserve's REST API that has no RPC."""

    rpc = ""

    def message(self) -> Any:
        raise Unimplemented("this is asked over HTTP: use the address of the server's REST port")

    def from_message(self, message: Any) -> T:
        raise NotImplementedError


@dataclass(frozen=True)
class Scheduling(_OwnRoute[dict[str, Any]]):
    model: str
    version: str = ""

    def http(self) -> HttpRequest:
        return HttpRequest("GET", model_path(self.model, self.version) + "/scheduling")

    def from_http(self, response: HttpResponse) -> dict[str, Any]:
        return dict(json_of(response))


@dataclass(frozen=True)
class SchedulingPicture(_OwnRoute[str]):
    model: str
    version: str = ""

    def http(self) -> HttpRequest:
        return HttpRequest("GET", model_path(self.model, self.version) + "/scheduling.svg")

    def from_http(self, response: HttpResponse) -> str:
        return bytes(response.body).decode()


@dataclass(frozen=True)
class States(_OwnRoute[list[dict[str, Any]]]):
    def http(self) -> HttpRequest:
        return HttpRequest("GET", "/v2/repository/states")

    def from_http(self, response: HttpResponse) -> list[dict[str, Any]]:
        return list(json_of(response))


@dataclass(frozen=True)
class Reload(_OwnRoute[bool]):
    def http(self) -> HttpRequest:
        return HttpRequest("POST", "/v2/repository/reload")

    def from_http(self, response: HttpResponse) -> bool:
        return response.status == 201

    def accepts(self, status: int) -> bool:
        return status in {200, 201}


@dataclass(frozen=True)
class Labels(_OwnRoute[list[dict[str, Any]]]):
    model: str

    def http(self) -> HttpRequest:
        return HttpRequest("GET", _repository_path(self.model) + "/labels")

    def from_http(self, response: HttpResponse) -> list[dict[str, Any]]:
        return list(json_of(response)["labels"])


@dataclass(frozen=True)
class ChangeLabels(_OwnRoute[list[dict[str, Any]]]):
    """Label -> {version: weight}, or None."""

    model: str
    labels: Mapping[str, Mapping[int, float] | None]
    expected: Mapping[str, Mapping[int, float] | None]

    def http(self) -> HttpRequest:
        body = {"labels": self.labels, "expected": self.expected}
        return HttpRequest("PUT", _repository_path(self.model) + "/labels", (json.dumps(body).encode(),))

    def from_http(self, response: HttpResponse) -> list[dict[str, Any]]:
        return list(json_of(response)["labels"])


@dataclass(frozen=True)
class Index(Call[list[result.IndexEntry]]):
    rpc = "RepositoryIndex"
    ready: bool = False

    def message(self) -> Any:
        return new_message("RepositoryIndexRequest", ready=self.ready)

    def from_message(self, message: Any) -> list[result.IndexEntry]:
        return result.index_entries(plain(message).get("models"))

    def http(self) -> HttpRequest:
        return HttpRequest("POST", "/v2/repository/index", (json.dumps({"ready": self.ready}).encode(),))

    def from_http(self, response: HttpResponse) -> list[result.IndexEntry]:
        document = json_of(response)
        return result.index_entries(document.get("models") if isinstance(document, dict) else document)


@dataclass(frozen=True)
class Load(Call[None]):
    """`config`: the model configuration as JSON text; `files`: "<version>/<file name>" -> content."""

    rpc = "RepositoryModelLoad"
    model: str
    config: str = ""
    files: Mapping[str, bytes] | None = None

    def message(self) -> Any:
        message = new_message("RepositoryModelLoadRequest", model_name=self.model)
        if self.config:
            message.parameters["config"].string_param = self.config
        for name, content in (self.files or {}).items():
            message.parameters[f"file:{name}"].bytes_param = content
        return message

    def from_message(self, message: Any) -> None:
        return None

    def http(self) -> HttpRequest:
        parameters: dict[str, Any] = {"config": self.config} if self.config else {}
        for name, content in (self.files or {}).items():
            parameters[f"file:{name}"] = base64.b64encode(content).decode()
        body = json.dumps({"parameters": parameters}).encode() if parameters else b""
        return HttpRequest("POST", _repository_path(self.model) + "/load", (body,))

    def from_http(self, response: HttpResponse) -> None:
        return None


@dataclass(frozen=True)
class Unload(Call[None]):
    rpc = "RepositoryModelUnload"
    model: str
    dependents: bool = False

    def message(self) -> Any:
        message = new_message("RepositoryModelUnloadRequest", model_name=self.model)
        if self.dependents:
            message.parameters["unload_dependents"].bool_param = True
        return message

    def from_message(self, message: Any) -> None:
        return None

    def http(self) -> HttpRequest:
        body = json.dumps({"parameters": {"unload_dependents": True}}).encode() if self.dependents else b""
        return HttpRequest("POST", _repository_path(self.model) + "/unload", (body,))

    def from_http(self, response: HttpResponse) -> None:
        return None


def _repository_path(model: str) -> str:
    return "/v2/repository" + model_path(model).removeprefix("/v2")
