"""pb_utils.ModelConfig: what `auto_complete_config` gets and returns, and look-ups in a model configuration."""

from __future__ import annotations

import copy
from typing import Any

_TENSOR_KEYS = {"name", "data_type", "dims", "optional"}


class ModelConfig:
    """A model configuration that may be completed, never contradicted."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = copy.deepcopy(config)

    def as_dict(self) -> dict[str, Any]:
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """ValueError when the configuration asks for more than the model can do."""
        asked = self._config.get("max_batch_size", 0)
        if asked > max_batch_size:
            raise ValueError(
                f"max_batch_size: the configuration has {asked}, the model takes {max_batch_size}"
            )
        self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """No effect beyond the configuration that clients see: a model with a max_batch_size is always batched."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy: dict[str, Any]) -> None:
        unknown = set(transaction_policy) - {"decoupled"}
        if unknown:
            raise ValueError(f"model_transaction_policy: got {sorted(unknown)}, want decoupled")
        asked = self._config.get("model_transaction_policy", {}).get("decoupled")
        given = bool(transaction_policy.get("decoupled", False))
        if asked and not given:
            raise ValueError(
                "model_transaction_policy.decoupled: the configuration has true, the model false"
            )
        self._config["model_transaction_policy"] = {"decoupled": given}

    def add_input(self, tensor: dict[str, Any]) -> None:
        self._add("input", tensor)

    def add_output(self, tensor: dict[str, Any]) -> None:
        self._add("output", tensor)

    def _add(self, side: str, tensor: dict[str, Any]) -> None:
        for key in ("name", "data_type", "dims"):
            if key not in tensor:
                raise ValueError(f"add_{side}: '{key}' is missing in {tensor}")
        if unknown := set(tensor) - _TENSOR_KEYS:
            raise ValueError(
                f"add_{side}: '{tensor['name']}': got {sorted(unknown)}, want {sorted(_TENSOR_KEYS)}"
            )
        tensors = self._config.setdefault(side, [])
        for known in tensors:
            if known["name"] == tensor["name"]:
                _same(side, known, tensor)
                return
        tensors.append({**tensor, "dims": list(tensor["dims"])})


def _same(side: str, known: dict[str, Any], tensor: dict[str, Any]) -> None:
    for key in ("data_type", "dims"):
        have = list(known[key]) if key == "dims" else known[key]
        want = list(tensor[key]) if key == "dims" else tensor[key]
        if have and have != want:
            raise ValueError(
                f'{side} "{known["name"]}": {key}: the configuration has {have}, the model says {want}'
            )
        known[key] = want


def _find(config: dict[str, Any], side: str, name: str) -> dict[str, Any] | None:
    return next((tensor for tensor in config.get(side) or [] if tensor["name"] == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    return _find(model_config, "input", name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    return _find(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))
