"""A `curl` to paste that works: zeros of the right shape for a ready model, or its metadata where zeros would
not do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from typing import Any

from fastserve import _core

MAX_ELEMENTS = 64  # of all inputs together: more does not read well on a terminal
UNKNOWN_DIMENSION = 1  # stands for -1

_ZERO: dict[str, Any] = {"BOOL": False, "BYTES": ""}
_NOT_IN_JSON = {"FP16", "BF16"}


def curl(address: str, statuses: Sequence[_core.VersionStatus], options: str = "") -> str:
    """For the first ready version; the server's metadata when there is none. `options`: "--cacert ca.pem "."""
    ready = [s for s in statuses if s.state == "READY"]
    if not ready:
        return f"curl -s {options}{address}/v2"
    status = ready[0]
    path = f"{address}/v2/models/{status.model}"
    inputs = [_zeros(spec) for spec in status.inputs if not spec.optional]
    if sum(len(i["data"]) for i in inputs) > MAX_ELEMENTS or any(
        i["datatype"] in _NOT_IN_JSON for i in inputs
    ):
        return f"curl -s {options}{path}"
    # A model name has no character that a shell would take apart; an input name may hold a quote.
    body = json.dumps({"inputs": inputs}, separators=(",", ":")).replace("'", "'\\''")
    return f"curl -s {options}{path}/infer -d '{body}'"


def _zeros(spec: _core.TensorSpec) -> dict[str, Any]:
    shape = [UNKNOWN_DIMENSION if d < 0 else d for d in spec.shape]
    count = min(prod(shape), MAX_ELEMENTS + 1)  # no use in making a list that is not shown
    zero = _ZERO.get(spec.datatype, 0.0 if spec.datatype.startswith("FP") else 0)
    return {"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [zero] * count}
