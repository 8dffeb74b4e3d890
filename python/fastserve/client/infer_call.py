"""The inference call: arguments -> gRPC message or HTTP request, answer -> Result. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastserve.client.calls import Call, HttpRequest, json_of, model_path, new_message
from fastserve.client.http11 import HttpResponse
from fastserve.client.result import Parameter, Result
from fastserve.client.tensors import (
    Array,
    Output,
    WireTensor,
    from_bytes,
    from_values,
    to_values,
    wire_tensors,
)
from fastserve.errors import InvalidArgument, from_code

JSON_LENGTH = "Inference-Header-Content-Length"
_INT64_MAX = (1 << 63) - 1

# Datatype -> the field of InferTensorContents that servers without raw_output_contents answer in.
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True)
class InferCall(Call[Result]):
    """`binary`: HTTP bodies with Triton's binary tensor data, else plain JSON."""

    rpc = "ModelInfer"
    idempotent = False  # a model may have state; the caller knows
    model: str
    inputs: Sequence[WireTensor]
    version: str = ""
    outputs: Sequence[Output] = ()
    id: str = ""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    binary: bool = True

    def in_json(self) -> InferCall:
        return replace(self, binary=False)

    def message(self) -> Any:
        message = new_message(
            "ModelInferRequest", model_name=self.model, model_version=self.version, id=self.id
        )
        for tensor in self.inputs:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(bytes(tensor.raw()))
        for output in self.outputs:
            wanted = message.outputs.add(name=output.name)
            if output.classification:
                wanted.parameters["classification"].int64_param = output.classification
        for name, value in self.parameters.items():
            _set(message.parameters[name], name, value)
        return message

    def from_message(self, message: Any) -> Result:
        return result_of(message)

    def http(self) -> HttpRequest:
        described: list[dict[str, Any]] = []
        binaries: list[bytes | memoryview] = []
        for tensor in self.inputs:
            entry: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
            if self.binary:
                binaries.append(tensor.raw())
                entry["parameters"] = {"binary_data_size": len(binaries[-1])}
            else:
                entry["data"] = to_values(tensor)
            described.append(entry)
        document: dict[str, Any] = {"inputs": described}
        if self.id:
            document["id"] = self.id
        if self.outputs:
            document["outputs"] = [_described(output, self.binary) for output in self.outputs]
        parameters = dict(self.parameters)
        if self.binary:
            parameters["binary_data_output"] = True
        if parameters:
            document["parameters"] = parameters
        head = json.dumps(document, separators=(",", ":")).encode()
        path = model_path(self.model, self.version) + "/infer"
        if not self.binary:
            return HttpRequest("POST", path, (head,), (("Content-Type", "application/json"),))
        headers = (("Content-Type", "application/octet-stream"), (JSON_LENGTH, str(len(head))))
        return HttpRequest("POST", path, (head, *binaries), headers)

    def from_http(self, response: HttpResponse) -> Result:
        return http_result(response)


def infer_call(
    model: str,
    inputs: Mapping[str, Any],
    *,
    version: str | int,
    outputs: Sequence[str | Output] | None,
    id: str,
    priority: int | None,
    parameters: Mapping[str, Parameter] | None,
) -> InferCall:
    """Checks and normalizes what a caller gives. Raises InvalidArgument."""
    if not model:
        raise InvalidArgument("model: got an empty name")
    wanted = tuple(Output(output) if isinstance(output, str) else output for output in outputs or ())
    all_parameters: dict[str, Parameter] = dict(parameters or {})
    if priority is not None:
        if priority < 0:
            raise InvalidArgument(f"priority: got {priority}, expected 0 (the model's default) or more")
        all_parameters["priority"] = priority
    for name, value in all_parameters.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidArgument(
                f'parameters["{name}"]: got {type(value).__name__}, expected bool, int, float or str'
            )
    return InferCall(model, wire_tensors(inputs), str(version), wanted, id, all_parameters)


def _described(output: Output, binary: bool) -> dict[str, Any]:
    parameters: dict[str, Parameter] = {"binary_data": True} if binary else {}
    if output.classification:
        parameters["classification"] = output.classification
    return {"name": output.name, "parameters": parameters} if parameters else {"name": output.name}


def _set(parameter: Any, name: str, value: Parameter) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif -_INT64_MAX - 1 <= value <= _INT64_MAX:
        parameter.int64_param = value
    elif 0 < value < 1 << 64:
        parameter.uint64_param = value
    else:
        raise InvalidArgument(f'parameters["{name}"]: got {value}, which has more than 64 bits')


def result_of(message: Any) -> Result:
    """From ModelInferResponse, with raw or typed contents."""
    raw = message.raw_output_contents
    outputs: dict[str, Array] = {}
    for at, tensor in enumerate(message.outputs):
        shape = list(tensor.shape)
        try:
            if at < len(raw):
                outputs[tensor.name] = from_bytes(tensor.datatype, shape, raw[at])
            else:
                values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
                outputs[tensor.name] = from_values(tensor.datatype, shape, list(values))
        except (ValueError, KeyError) as error:
            raise _unreadable(tensor.name, error) from None
    return Result(
        outputs,
        datatypes={tensor.name: tensor.datatype for tensor in message.outputs},
        model=message.model_name,
        model_version=message.model_version,
        id=message.id,
        parameters={name: _value(parameter) for name, parameter in message.parameters.items()},
    )


def _value(parameter: Any) -> Parameter:
    chosen = parameter.WhichOneof("parameter_choice")
    value: Parameter = getattr(parameter, chosen) if chosen else ""
    return value


def http_result(response: HttpResponse) -> Result:
    """From JSON with or without binary tensor data behind it."""
    length = response.headers.get(JSON_LENGTH.lower(), "")
    at = int(length) if length.isascii() and length.isdecimal() else len(response.body)
    body = memoryview(response.body)
    document = json_of(HttpResponse(response.head, bytes(body[:at])) if at < len(body) else response)
    outputs: dict[str, Array] = {}
    datatypes: dict[str, str] = {}
    for tensor in document.get("outputs") or ():
        name = str(tensor.get("name", ""))
        try:
            datatypes[name], shape = tensor["datatype"], [int(size) for size in tensor["shape"]]
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            if size is None:
                outputs[name] = from_values(datatypes[name], shape, tensor.get("data", []))
            else:
                outputs[name] = from_bytes(datatypes[name], shape, body[at : at + size])
                at += size
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(name, error) from None
    return Result(
        outputs,
        datatypes=datatypes,
        model=str(document.get("model_name") or ""),
        model_version=str(document.get("model_version") or ""),
        id=str(document.get("id") or ""),
        parameters=document.get("parameters"),
    )


def _unreadable(output: str, error: Exception) -> Exception:
    return from_code(2, f"the server's answer cannot be read: output '{output}': {error}")
