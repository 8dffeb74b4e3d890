"""Labels as both front ends have them: plain data out, checked changes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.errors import NotFound
from fastserve.frontends.names import check_model
from fastserve.frontends.served import Served
from fastserve.lifecycle.version_labels import Label

Changes = Mapping[str, Mapping[int, float] | None]


async def read(served: Served, model: str) -> list[Label]:
    """NotFound: there is no such model, in no repository either."""
    await _check_known(served, model)
    return served.labels.of(model)


async def change(served: Served, model: str, changes: Changes, expected: Changes) -> list[Label]:
    await _check_known(served, model)
    served.labels.change(model, changes, expected)
    return served.labels.of(model)


async def _check_known(served: Served, model: str) -> None:
    """Labels may come before versions, but not before the model: or a misspelt name would be accepted, and kept."""
    check_model(model)
    if served.labels.of(model):
        return
    if not any(state.model == model for state in await served.control.states()):
        raise NotFound(f"Request for unknown model: '{model}' is not found")


def label_entry(label: Label) -> dict[str, Any]:
    versions = [
        {"version": v.version, "weight": v.weight, "ready": v.ready, "requests": v.requests}
        for v in label.versions
    ]
    return {"name": label.name, "source": label.source, "versions": versions}
