"""config.pbtxt -> what it asks for, checked: nothing that it says is silently dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from fastserve import protos
from fastserve.label_text import read_labels_text
from fastserve.lifecycle import json_config, pbtxt
from fastserve.lifecycle.config_fields import refused_fields
from fastserve.lifecycle.labels import LabelFile, label_name_error
from fastserve.lifecycle.pbtxt import Positions, TextError
from fastserve.lifecycle.settings import Settings, VersionPolicy, without_config
from fastserve.lifecycle.tensor_types import datatype_of
from fastserve.lifecycle.triton_gpu import TritonGpu
from fastserve.lifecycle.triton_scheduling import PARAMETERS, TritonScheduling
from fastserve.lifecycle.version_labels import MAX_LABELS
from fastserve.lifecycle.version_spec import Problem, TensorShape
from fastserve.lifecycle.warm_up_checks import warm_up_errors
from fastserve.lifecycle.warm_up_files import WarmUpFile
from fastserve.scheduling import Scheduling

__all__ = [
    "CONFIG_FILE",
    "Settings",
    "VersionPolicy",
    "name_error",
    "read_config",
    "read_json_config",
    "without_config",
]

CONFIG_FILE = "config.pbtxt"
REQUEST_CONFIG = "load parameter 'config'"  # where problems of a configuration in a request are
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
VERSION_LABELS = "version_labels"  # a parameter: "stable=3 canary=3:95,4:5"

# What Triton's repositories call a backend or platform -> ours. TensorFlow's formats are read by OpenVINO, which runs
# them, and a line in the log says so.
_ASKED_BACKENDS = {
    "openvino": "openvino",
    "identity": "identity",
    "onnxruntime": "onnxruntime",
    "onnxruntime_onnx": "onnxruntime",
    "python": "python",
    "pytorch": "pytorch",
    "pytorch_libtorch": "pytorch",
    "tensorrt": "tensorrt",
    "tensorrt_plan": "tensorrt",
    "tensorflow": "openvino",
    "tensorflow_savedmodel": "openvino",
}
# platform "x" and backend "y" may both be given when they mean the same.
_BACKEND_OF_PLATFORM = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_savedmodel": "tensorflow",
}
# A platform also names a format, which OpenVINO may be asked to run.
_READ_BY_OPENVINO = {"onnxruntime_onnx", "tensorflow_savedmodel"}
# Backends that read no parameters of their own: OpenVINO runs their format.
_FOREIGN = {"tensorflow", "tensorflow_savedmodel"}
_DEFAULT_FILES = {
    "tensorflow_savedmodel": "model.savedmodel",
    "tensorflow": "model.savedmodel",
    "tensorrt_plan": "model.plan",
}
# Parameters of TensorFlow's backend that tune speed only: they have no meaning on OpenVINO.
_TUNING = re.compile(r"TF_NUM_(INTRA|INTER)_THREADS|TF_USE_PER_SESSION_THREADS|MAX_SESSION_SHARE_COUNT")


def name_error(name: str) -> str:
    """What is wrong with a model's name; "" when it is a good one."""
    if not NAME.fullmatch(name):
        return f"'{name[:140]}' is no model name: 1 to 128 of A-Z a-z 0-9 . _ -"
    return f"'{name}' is no model name: it has nothing but dots" if not name.strip(".") else ""


def read_config(
    model: str, text: str, host_policies: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Settings | None, list[Problem]]:
    """`model`: the folder's name. No settings when anything is wrong; then every problem that was found."""
    return _read(model, text, CONFIG_FILE, pbtxt.parse, host_policies)


def read_json_config(
    model: str, text: str, host_policies: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[Settings | None, list[Problem]]:
    """As read_config, for the configuration that a load by request carries."""
    settings, problems = _read(model, text, "", json_config.parse, host_policies)
    return settings, [replace(problem, where=REQUEST_CONFIG) for problem in problems]


def _read(
    model: str,
    text: str,
    file: str,
    parse: Callable[[str, Any], tuple[Positions, list[TextError]]],
    host_policies: Mapping[str, tuple[int, ...]] | None,
) -> tuple[Settings | None, list[Problem]]:
    message = protos.message_class("inference.ModelConfig")()
    positions, errors = parse(text, message)
    reader = ConfigReader(model, message, positions, TritonScheduling(message, positions, host_policies))
    if not errors or positions:  # else the text could not be understood at all
        errors = [*errors, *refused_fields(message, positions), *reader.check(), *reader.check_triton()]
    if errors:
        return None, problems_of(model, file, errors)
    return reader.settings(), []


def problems_of(model: str, file: str, errors: Iterable[TextError]) -> list[Problem]:
    """In the order of the lines, each once."""
    ordered = sorted(dict.fromkeys(errors), key=lambda e: e.line)
    return [Problem(model, error.message, f"{model}/{file}", error.line) for error in ordered]


class SpelledScheduling(Protocol):
    """What a file says about scheduling, and where."""

    @property
    def wanted(self) -> Scheduling: ...
    @property
    def notes(self) -> list[str]: ...
    def errors(self, max_batch_rows: int) -> Iterator[TextError]: ...
    def error(self, path: tuple[str | int, ...], text: str) -> TextError:
        """About a value of `wanted`, in the words of the file."""


class ConfigReader:
    """One message with its positions: first check(), then settings()."""

    def __init__(self, model: str, message: Any, positions: Positions, scheduling: SpelledScheduling) -> None:
        self.model = model
        self.message = message
        self.positions = positions
        self.asked_backend = message.backend or message.platform
        self.gpu = TritonGpu(message, positions)
        self.backend = self.gpu.backend(_ASKED_BACKENDS.get(self.asked_backend, ""))
        self.max_batch_rows = message.max_batch_size
        if not positions.has("max_batch_size") and not (message.input or message.output):
            self.max_batch_rows = -1  # nothing is said: the model decides
        self.scheduling = scheduling
        if self.max_batch_rows == -1 and self.scheduling.wanted.allowed_batch_sizes:
            self.max_batch_rows = self.scheduling.wanted.allowed_batch_sizes[-1]

    # --- checks: each yields what is impossible, in the words of the file

    def check(self) -> Iterator[TextError]:
        yield from self._check_names()
        yield from self._check_tensors("input", self.message.input)
        yield from self._check_tensors("output", self.message.output)
        yield from self._check_versions()
        yield from self.gpu.errors()
        yield from self._check_batching()
        yield from warm_up_errors(self.message, self.scheduling.error)
        yield from self.scheduling.errors(self.max_batch_rows)
        yield from self._check_file_name()
        yield from self._check_label_files()
        yield from self._check_parameters()
        yield from self._check_version_labels()
        yield from self._check_accelerators()

    def check_triton(self) -> Iterator[TextError]:
        """What only Triton demands."""
        if self.message.HasField("dynamic_batching") and self.max_batch_rows == 0:
            written = self.positions.has("max_batch_size")
            yield self._error(
                "dynamic_batching needs max_batch_size above 0, got " + ("0" if written else "none"),
                "dynamic_batching",
            )

    def _error(self, message: str, *path: str | int) -> TextError:
        return TextError(self.positions.line(*path), message)

    def _check_names(self) -> Iterator[TextError]:
        message = self.message
        if message.name and message.name != self.model:
            yield self._error(f"name: got '{message.name}', but the folder is named '{self.model}'", "name")
        field = "backend" if message.backend else "platform"
        if self.asked_backend and not self.backend:
            yield self._error(
                f"{field}: '{self.asked_backend}' is not available here; there are "
                + ", ".join(_ASKED_BACKENDS),
                field,
            )
        elif message.backend and message.platform:
            platform = _BACKEND_OF_PLATFORM.get(message.platform, message.platform)
            read = message.backend == "openvino" and message.platform in _READ_BY_OPENVINO
            if platform != message.backend and not read:
                yield self._error(
                    f"platform: '{message.platform}' does not go with backend '{message.backend}'", "platform"
                )

    def _check_tensors(self, kind: str, tensors: Any) -> Iterator[TextError]:
        seen: set[str] = set()
        for index, tensor in enumerate(tensors):
            label = f'{kind} "{tensor.name}"'
            if not tensor.name:
                label = f"{kind}[{index}]"
                yield self._error(f"{label}: name is missing", kind, index)
            elif tensor.name in seen:
                yield self._error(f"{label} is given twice", kind, index, "name")
            seen.add(tensor.name)
            if not tensor.data_type:
                yield self._error(f"{label}: data_type is missing", kind, index, "data_type")
            if not tensor.dims:
                yield self._error(
                    f"{label}: dims is missing (a scalar per row is dims: [ 1 ])", kind, index, "dims"
                )
            for position, dim in enumerate(tensor.dims):
                if dim < 1 and dim != -1:
                    yield self._error(
                        f"{label}: dims[{position}]: got {dim}, want -1 (any) or at least 1",
                        *(kind, index, "dims", position),
                    )
            image_ranks = (3,) if self.max_batch_rows else (3, 4)
            if kind == "input" and tensor.format and len(tensor.dims) not in image_ranks:
                message = f"{label}: format is for images of 3 dims, got {len(tensor.dims)}"
                yield self._error(message, kind, index, "format")

    def _check_versions(self) -> Iterator[TextError]:
        for index, version in enumerate(self.message.version_policy.specific.versions):
            if version < 1:
                path = ("version_policy", 0, "specific", 0, "versions", index)
                name = self.positions.name("version_policy.specific.versions")
                yield self._error(f"{name}: got {version}, want at least 1", *path)
        policy = self.message.version_policy
        if policy.WhichOneof("policy_choice") == "specific" and not policy.specific.versions:
            name = self.positions.name("version_policy.specific")
            yield self._error(f"{name}: versions is empty", "version_policy")

    def _check_batching(self) -> Iterator[TextError]:
        message = self.message
        if message.max_batch_size < 0:
            yield self._error(
                f"max_batch_size: got {message.max_batch_size}, want at least 0", "max_batch_size"
            )

    def _check_file_name(self) -> Iterator[TextError]:
        name = self.message.default_model_filename
        if not name:
            return
        parts = PurePosixPath(name).parts
        field = self.positions.name("default_model_filename")
        if name.startswith("/") or ".." in parts or "\0" in name or not parts:
            yield self._error(f"{field}: '{name}' leaves the version directory", "default_model_filename")
        elif self.backend == "identity":
            yield self._error(f"{field}: backend identity has no model file", "default_model_filename")

    def _check_label_files(self) -> Iterator[TextError]:
        for index, output in enumerate(self.message.output):
            if output.label_filename and (wrong := label_name_error(output.label_filename)):
                field = self.positions.name("output.label_filename")
                yield self._error(f"{field}: {wrong}", "output", index, "label_filename")

    def _check_version_labels(self) -> Iterator[TextError]:
        if VERSION_LABELS not in self.message.parameters:
            return
        try:
            labels = read_labels_text(self.message.parameters[VERSION_LABELS].string_value)
            if len(labels) > MAX_LABELS:
                raise ValueError(f"got {len(labels)} labels, want {MAX_LABELS} or fewer")
        except ValueError as error:
            line = self.positions.line_of_key("parameters", VERSION_LABELS)
            yield TextError(line, f"parameters: '{VERSION_LABELS}': {error}")

    def _check_parameters(self) -> Iterator[TextError]:
        if self.asked_backend not in _FOREIGN:
            return  # the backend itself knows its parameters
        for key in self.message.parameters:
            if key not in PARAMETERS and key != VERSION_LABELS and not _TUNING.fullmatch(key):
                yield TextError(
                    self.positions.line_of_key("parameters", key),
                    f"parameters: '{key}' of {self.asked_backend} has no counterpart on OpenVINO",
                )

    def _check_accelerators(self) -> Iterator[TextError]:
        accelerators = self.message.optimization.execution_accelerators.cpu_execution_accelerator
        for index, accelerator in enumerate(accelerators):
            if accelerator.name != "openvino" or accelerator.parameters:
                path = ("optimization", 0, "execution_accelerators", 0, "cpu_execution_accelerator", index)
                yield self._error(
                    "optimization.execution_accelerators.cpu_execution_accelerator: "
                    f"'{accelerator.name}' is not supported yet (only openvino without parameters)",
                    *path,
                )

    # --- the result

    def settings(self) -> Settings:
        message = self.message
        # Not a part of what is loaded: a label that moves loads nothing again.
        labels = read_labels_text(
            message.parameters[VERSION_LABELS].string_value if VERSION_LABELS in message.parameters else ""
        )
        message.parameters.pop(VERSION_LABELS, None)
        tuning = self.asked_backend in _FOREIGN
        parameters = {} if tuning else {k: v.string_value for k, v in message.parameters.items()}
        return Settings(
            model=self.model,
            backend=self.backend,
            file_name=message.default_model_filename or _DEFAULT_FILES.get(self.asked_backend, ""),
            max_batch_rows=self.max_batch_rows,
            inputs=self._tensors(message.input),
            outputs=self._tensors(message.output),
            version_policy=self._version_policy(),
            scheduling=self.scheduling.wanted,
            on_gpu=self.gpu.on_gpu,
            on_cpu=self.gpu.on_cpu,
            lane=tuple(sorted(self.gpu.parameters().items())),
            parameters=tuple(sorted((k, v) for k, v in parameters.items() if k not in PARAMETERS)),
            label_files=tuple(self._label_files()),
            version_labels=tuple(sorted((name, tuple(sorted(v.items()))) for name, v in labels.items())),
            warm_up_files=tuple(self._warm_up_files()),
            asked=message.SerializeToString(deterministic=True),
            notes=tuple(self._notes()),
        )

    def _label_files(self) -> Iterator[LabelFile]:
        for index, output in enumerate(self.message.output):
            if output.label_filename:
                line = self.positions.line("output", index, "label_filename")
                yield LabelFile(output.name, output.label_filename, line)

    def _warm_up_files(self) -> Iterator[WarmUpFile]:
        for index, sample in enumerate(self.message.model_warmup):
            for name in sorted(sample.inputs):
                if file := sample.inputs[name].input_data_file:
                    at = self.scheduling.error(("warm_up", index, "inputs", name, "input_data_file"), "")
                    yield WarmUpFile(index, name, file, at.message.removesuffix(": "), at.line)

    def _tensors(self, tensors: Any) -> tuple[TensorShape, ...]:
        front = (-1,) if self.max_batch_rows > 0 else ()
        return tuple(
            TensorShape(t.name, datatype_of(t.data_type), (*front, *t.dims), getattr(t, "optional", False))
            for t in tensors
        )

    def _version_policy(self) -> VersionPolicy:
        policy = self.message.version_policy
        match policy.WhichOneof("policy_choice"):
            case "all":
                return VersionPolicy(latest=0)
            case "specific":
                return VersionPolicy(specific=tuple(sorted(set(policy.specific.versions))))
            case _:
                return VersionPolicy(latest=policy.latest.num_versions or 1)

    def _notes(self) -> Iterator[str]:
        if self.asked_backend in _FOREIGN:
            yield f"{self.asked_backend} is asked for; OpenVINO reads the format and runs it"
            if foreign := sorted(set(self.message.parameters) - PARAMETERS):
                yield f"parameters for {self.asked_backend} are without effect: " + ", ".join(foreign)
        yield from self.gpu.notes()
        yield from self.scheduling.notes
