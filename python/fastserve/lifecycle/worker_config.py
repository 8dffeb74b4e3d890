"""Triton's model configuration of a version as a worker process gets it: JSON, before the model has completed it."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from fastserve import protos
from fastserve.lifecycle.completed import config_json
from fastserve.lifecycle.version_spec import VersionSpec


def worker_config(spec: VersionSpec) -> str:
    """`max_batch_size` is left out where nobody says anything about batching: then the model decides."""
    message = protos.message_class("inference.ModelConfig").FromString(spec.asked)
    message.name = spec.model
    message.backend = spec.backend
    name = PurePosixPath(spec.path).name
    if spec.path and not name.isdigit():
        message.default_model_filename = name
    config = config_json(message)
    if spec.max_batch_rows < 0:
        del config["max_batch_size"]
    else:
        config["max_batch_size"] = spec.max_batch_rows
    return json.dumps(config)
