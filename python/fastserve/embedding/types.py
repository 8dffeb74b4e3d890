"""What goes in and comes out of inference calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


class SupportsDLPack(Protocol):
    """A tensor of another library (torch, jax, ...): https://dmlc.github.io/dlpack."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> tuple[Any, Any]: ...


Inputs: TypeAlias = Mapping[str, Array | SupportsDLPack]
# Names of those wanted (empty: all), or {name: array to write it to}.
Wanted: TypeAlias = Sequence[str] | Mapping[str, Array | SupportsDLPack]
Outputs: TypeAlias = dict[str, Array]
