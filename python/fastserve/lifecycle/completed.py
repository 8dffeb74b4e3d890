"""The completed ModelConfig of a loaded version: what its configuration asked for, with what the model and engine added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from fastserve import _core, protos
from fastserve.gpu import backends as gpu_backends
from fastserve.lifecycle.host_policy import CPU_POLICY
from fastserve.lifecycle.tensor_types import data_type_of
from fastserve.lifecycle.triton_scheduling import TARGET
from fastserve.lifecycle.triton_write import write_scheduling
from fastserve.lifecycle.version_spec import VersionSpec

# Says which backend config.pbtxt named when another one runs the model.
ASKED_BACKEND_PARAMETER = "fastserve_requested_backend"


def completed_config(spec: VersionSpec, status: _core.VersionStatus) -> Any:
    """inference.ModelConfig: `dims` without the batch dimension, as the ModelConfig RPC returns it.

    `backend` is always the one that runs. `platform` stays as asked ("onnxruntime_onnx"); a backend of another name
    that was asked for is in parameters["fastserve_requested_backend"].
    """
    config = protos.message_class("inference.ModelConfig").FromString(spec.asked)
    config.name = spec.model
    backend = status.backend or spec.backend
    if config.backend and config.backend != backend:
        config.parameters[ASKED_BACKEND_PARAMETER].string_value = config.backend
    config.backend = backend
    config.platform = config.platform or status.platform
    config.max_batch_size = max(status.max_batch_rows, 0)
    _complete_tensors(config.input, status.inputs, config.max_batch_size > 0)
    _complete_tensors(config.output, status.outputs, config.max_batch_size > 0)
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    if spec.path and not config.default_model_filename:
        name = PurePosixPath(spec.path).name
        config.default_model_filename = "" if name.isdigit() else name
    _complete_scheduling(config, spec)
    _complete_instances(config, spec, status)
    if config.max_batch_size > 0:
        config.dynamic_batching.SetInParent()
    return config


def _complete_tensors(tensors: Any, loaded: list[_core.TensorSpec], batches: bool) -> None:
    if not loaded:  # not loaded yet: there is only what was asked
        return
    asked = {tensor.name: tensor.__deepcopy__() for tensor in tensors}
    del tensors[:]
    for actual in loaded:
        tensor = tensors.add()
        if actual.name in asked:
            tensor.CopyFrom(asked[actual.name])
        tensor.name = actual.name
        tensor.data_type = data_type_of(actual.datatype)
        tensor.dims[:] = actual.shape[1:] if batches else actual.shape
        if actual.optional:  # outputs never are
            tensor.optional = True


def _complete_scheduling(config: Any, spec: VersionSpec) -> None:
    """What comes from elsewhere: the server's default target, TensorFlow Serving's parameters, CPUs of a host policy."""
    asked_target = TARGET in config.parameters
    by_default = [
        group for group in spec.scheduling.instances if group.count == 0
    ]  # CPUs of the policy "cpu"
    write_scheduling(replace(spec.scheduling, instances=()) if by_default else spec.scheduling, config)
    if not asked_target and not spec.scheduling.target_p99_ms:
        config.parameters.pop(TARGET, None)  # none by default: nothing to be said
    for sample in config.model_warmup:
        sample.count = sample.count or 1


def _complete_instances(config: Any, spec: VersionSpec, status: _core.VersionStatus) -> None:
    kind = "KIND_GPU" if spec.backend in gpu_backends.CAPTURED else "KIND_CPU"
    number = protos.enum_type("inference.ModelInstanceGroup.Kind").values_by_name[kind].number
    if not config.instance_group:
        group = config.instance_group.add(kind=number, count=max(status.instance_count, 1))
        if spec.scheduling.instances:
            group.host_policy = CPU_POLICY
    for index, group in enumerate(config.instance_group):
        group.name = group.name or f"{spec.model}_{index}"
        group.count = group.count or 1
        if group.kind == 0:  # KIND_AUTO
            group.kind = number


def config_json(message: Any) -> dict[str, Any]:
    """A message as Triton's REST has it: the names of the proto, every scalar present, numbers as numbers."""
    return {
        field.name: _json_value(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _json_value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = field.message_type.fields_by_name["value"]
        return {str(key): _json_scalar(of_value, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_json_scalar(field, item) for item in value]
    return _json_scalar(field, value)


def _json_scalar(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return config_json(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    return value
