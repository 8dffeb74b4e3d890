"""Which backend runs a version, and why: by the configuration, by the file's name, or because the usual one cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fastserve import _core, errors, protos
from fastserve.lifecycle import integrity, onnx_weights, protected
from fastserve.lifecycle.version_spec import VersionSpec
from fastserve.plugins import second_choice

logger = logging.getLogger("fastserve.lifecycle")

Progress = Callable[[float, str], None]


class Loads(Protocol):
    """The part of _core.Engine that is used here."""

    def load(self, spec: _core.LoadSpec, progress: Progress | None = None) -> None: ...


def asked_backend(spec: VersionSpec) -> str:
    """The `backend` or `platform` of the configuration; "" when it names none."""
    message = protos.message_class("inference.ModelConfig").FromString(spec.asked)
    return str(message.backend or message.platform)


def why(spec: VersionSpec) -> str:
    """For people."""
    if spec.chosen_because:
        return spec.chosen_because
    if asked := asked_backend(spec):
        return f"the configuration says {asked}"
    if spec.backend == "openvino" and spec.path.endswith(".onnx"):
        return "model.onnx goes to OpenVINO, and to onnxruntime if OpenVINO lacks an operation"
    return f"{spec.path.rpartition('/')[2]} goes to it"


def load(core: Loads, spec: VersionSpec, progress: Progress | None = None) -> None:
    """Loads, if need be with ONNX Runtime instead of OpenVINO. Blocks; raises FastserveError with both reasons."""
    integrity.verify(spec, progress)
    if spec.path:
        onnx_weights.check(Path(spec.path))
    try:
        core.load(protected.core_spec(spec, progress), progress)
    except (errors.InvalidArgument, errors.Unimplemented) as refused:
        second = "" if asked_backend(spec) else second_choice(spec.backend, spec.path, refused.message)
        if not second:
            raise
        reason = f"OpenVINO cannot run it: {refused.message}"
        logger.info("model %s version %d goes to %s: %s", spec.model, spec.version, second, reason)
        other = replace(spec, backend=second, parameters=(), chosen_because=reason)
        try:
            core.load(other.to_core(), progress)
        except errors.FastserveError as error:
            text = f"{refused.message}; {second}: {error.message}"
            raise type(refused)(text) from None
