"""Datatypes of OIP in numpy, tensors of Triton's model configuration, checks of what a model answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastserve import errors

if TYPE_CHECKING:
    from fastserve.worker.model import Array, TensorSpec

# BF16: numpy has none; a worker's channel widens it to float32 and narrows it again.
NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.float32),
    "BYTES": np.dtype(np.object_),
}
_DATATYPES = {dtype: name for name, dtype in NUMPY.items() if name != "BF16"}


def datatype_of(dtype: np.dtype[Any]) -> str:
    """OIP's name of a numpy dtype; "" when it has none."""
    return "BYTES" if dtype.kind in "SUO" else _DATATYPES.get(dtype, "")


def configured(config: dict[str, Any], side: str, *, batches: bool) -> list[TensorSpec]:
    """`side`: "input" or "output" of a Triton model configuration, with the rows in front when the model batches."""
    from fastserve.worker.model import TensorSpec

    specs = []
    for tensor in config.get(side) or []:
        name = str(tensor["name"])
        datatype = str(tensor.get("data_type", "")).removeprefix("TYPE_").replace("STRING", "BYTES")
        if datatype not in NUMPY:
            raise errors.InvalidArgument(f'config.{side}["{name}"].data_type: got "{datatype}"')
        dims = [int(dim) for dim in tensor.get("dims", [])]
        optional = bool(tensor.get("optional", False))
        specs.append(TensorSpec(name, datatype, [-1, *dims] if batches else dims, optional))
    return specs


def wrong_output(spec: TensorSpec, array: Array, rows: int | None) -> str:
    """ "" or what is wrong with an output. `rows`: the request's, where the model batches."""
    if array.dtype is NUMPY[spec.datatype]:  # the usual case, of every answer, without words
        shape = list(array.shape)
        if shape == (spec.shape if rows is None else [rows, *spec.shape[1:]]):
            return ""
    field = f'outputs["{spec.name}"]'
    if datatype_of(array.dtype) != ("FP32" if spec.datatype == "BF16" else spec.datatype):
        got = datatype_of(array.dtype) or str(array.dtype)
        return f"{field}.datatype: got {got}, want {spec.datatype}"
    if array.ndim != len(spec.shape):
        return f"{field}.shape: got {list(array.shape)}, want {spec.shape}"
    for at, (got_dim, want_dim) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if at == 0 and rows is not None:
            want_dim = rows
        if want_dim not in {-1, got_dim}:
            return f"{field}.shape[{at}]: got {got_dim}, want {want_dim}"
    return ""


def rows_of(inputs: dict[str, Array]) -> int:
    """Of one request to a model that batches."""
    return next(iter(inputs.values())).shape[0] if inputs else 0


def quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "none"
