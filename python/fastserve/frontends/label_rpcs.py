"""fastserve.ModelLabels: what labels of versions stand for (protos/fastserve_labels.proto)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.frontends import label_words
from fastserve.frontends.grpc_registry import RpcCall, rpc
from fastserve.lifecycle.version_labels import Label

SERVICE = "/fastserve.ModelLabels"


@rpc(f"{SERVICE}/GetLabels")
async def get_labels(request: Any, call: RpcCall) -> Any:
    return _response(call, request.model_name, await label_words.read(call.served, request.model_name))


@rpc(f"{SERVICE}/ChangeLabels")
async def change_labels(request: Any, call: RpcCall) -> Any:
    model = request.model_name
    labels = await label_words.change(
        call.served, model, _changes(request.labels), _changes(request.expected)
    )
    return _response(call, model, labels)


def _changes(labels: Any) -> dict[str, Mapping[int, float] | None]:
    """Of map<string, LabelWeights>."""
    return {name: dict(given.weights) or None for name, given in labels.items()}


def _response(call: RpcCall, model: str, labels: list[Label]) -> Any:
    return call.response(model_name=model, labels=[label_words.label_entry(label) for label in labels])
