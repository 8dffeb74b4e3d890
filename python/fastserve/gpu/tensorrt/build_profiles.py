"""The optimisation profiles that an ONNX model is built with. Pure.

One static profile (min = opt = max) for each prepared batch size; where other dimensions have a range, one profile with ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.settings import BuildSettings

# Where nobody says how large a batch may be; as OpenVINO's backend has it.
DEFAULT_MAX_BATCH_ROWS = 64

Shape = tuple[int, ...]
Bounds = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> min, opt, max


@dataclass(frozen=True)
class Wanted:
    """What the configuration says, as in LoadSpec."""

    max_batch_rows: int = -1  # -1: not said, 0: no batch dimension
    sizes: tuple[int, ...] = ()  # allowed_batch_sizes
    dims: Mapping[str, Shape] = field(default_factory=dict)  # of inputs, with -1 in front where it batches


def wanted_of(spec: Any) -> Wanted:
    return Wanted(
        spec.max_batch_rows,
        tuple(spec.allowed_rows),
        {tensor.name: tuple(tensor.shape) for tensor in spec.inputs},
    )


def usual_sizes(most: int) -> tuple[int, ...]:
    """Powers of two, because each one costs its own build."""
    sizes = []
    size = 1
    while size < most:
        sizes.append(size)
        size *= 2
    return (*sizes, most)


def profiles(inputs: Mapping[str, Shape], wanted: Wanted, settings: BuildSettings) -> list[Bounds]:
    """`inputs`: as the file has them, -1 = free. [] when nothing is free. InvalidArgument: names what is missing or wrong."""
    for name in (*wanted.dims, *settings.min_dims, *settings.opt_dims, *settings.max_dims):
        if name not in inputs:
            raise errors.InvalidArgument(
                f'inputs["{name}"]: the model has no such input, it has {", ".join(inputs)}'
            )
    rows = _rows(inputs, wanted)
    front = 1 if rows else 0
    dims = {name: _dims(name, shape, wanted, settings, front) for name, shape in inputs.items()}
    if not rows and all(low == high == inputs[name] for name, (low, _, high) in dims.items()):
        return []
    if not rows:
        return [dims]
    if all(low == high for low, _, high in dims.values()):
        sizes = wanted.sizes or usual_sizes(rows)
        if sizes[-1] != rows:
            raise errors.InvalidArgument(
                f"allowed_batch_sizes: the last one is {sizes[-1]}, want {rows}, the most rows of a batch"
            )
        return [{name: _static((size, *low)) for name, (low, _, _) in dims.items()} for size in sizes]
    if wanted.sizes:
        raise errors.InvalidArgument("allowed_batch_sizes: cannot be kept where min_dims and max_dims differ")
    return [{name: ((1, *low), (rows, *best), (rows, *high)) for name, (low, best, high) in dims.items()}]


def _rows(inputs: Mapping[str, Shape], wanted: Wanted) -> int:
    """The most rows of a batch; 0: the profiles have none to vary."""
    asked = wanted.max_batch_rows
    fronts = {shape[0] if shape else None for shape in inputs.values()}
    if asked == 0:
        return 0
    if fronts == {-1}:
        return asked if asked > 0 else DEFAULT_MAX_BATCH_ROWS
    if asked < 0 or fronts == {asked}:
        return 0
    name, shape = next((name, shape) for name, shape in inputs.items() if not shape or shape[0] != -1)
    has = f"{shape[0]} rows for good" if shape else "no dimensions"
    raise errors.InvalidArgument(
        f'max_batch_size: got {asked}, but inputs["{name}"] has {has}: export the model with a free first dimension'
    )


def _dims(
    name: str, shape: Shape, wanted: Wanted, settings: BuildSettings, front: int
) -> tuple[Shape, Shape, Shape]:
    """(min, opt, max) without the rows where there are such."""
    asked = wanted.dims.get(name)
    # Of the configuration, whose first dimension is the rows where it batches.
    batches = wanted.max_batch_rows > 0
    if asked is not None and len(asked) != len(shape):
        raise errors.InvalidArgument(
            f'inputs["{name}"].shape: got {list(asked)}, want {list(shape)} (the model)'
        )
    sizes = []
    for i, dim in enumerate(shape):
        got = -1 if asked is None or (batches and i == 0) else asked[i]
        if -1 not in {dim, got} and dim != got:
            raise errors.InvalidArgument(f'inputs["{name}"].shape[{i}]: got {got}, want {dim} (the model)')
        sizes.append(got if dim == -1 else dim)
    fixed = tuple(sizes[front:])
    least = _filled(name, fixed, "min_dims", settings.min_dims, settings, front)
    most = _filled(name, fixed, "max_dims", settings.max_dims, settings, front)
    return least, _filled(name, fixed, "opt_dims", settings.opt_dims, settings, front), most


def _filled(
    name: str, fixed: Shape, parameter: str, given: Mapping[str, Shape], settings: BuildSettings, front: int
) -> Shape:
    """opt_dims may be left out: then it is max_dims."""
    shape = given.get(name) or (settings.max_dims.get(name) if parameter == "opt_dims" else None)
    if shape is None:
        if -1 in fixed:
            raise errors.InvalidArgument(
                f'inputs["{name}"].shape[{fixed.index(-1) + front}]: is free in the model: give its size in the configuration, '
                f"or its range in the parameters min_dims, opt_dims and max_dims"
            )
        return fixed
    if len(shape) != len(fixed) or any(f not in {-1, s} for f, s in zip(fixed, shape, strict=True)):
        raise errors.InvalidArgument(
            f'parameters["{parameter}"]: got {list(shape)} for {name}, want {list(fixed)} (-1: any)'
        )
    return shape


def _static(shape: Shape) -> tuple[Shape, Shape, Shape]:
    return shape, shape, shape
