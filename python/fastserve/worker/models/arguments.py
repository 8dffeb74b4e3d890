"""The `args` that a Python model's `initialize` gets, named as in Triton."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastserve.worker.model import ModelSpec


def arguments(spec: ModelSpec, config: dict[str, Any]) -> dict[str, str]:
    """All strings. `model_config` is JSON."""
    return {
        "model_config": json.dumps(config),
        "model_instance_kind": "CPU",
        "model_instance_name": spec.instance_name,
        "model_instance_device_id": "0",
        "model_repository": spec.repository,
        "model_version": str(spec.version),
        "model_name": spec.model,
    }
