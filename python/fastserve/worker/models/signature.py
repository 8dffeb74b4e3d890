"""The signature of a model file, narrowed by its configuration; the rules are those of csrc/backend/openvino_signature.cc.

A model batches when every input and output has a free leading dimension and the outputs' rows follow the inputs'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastserve import errors
from fastserve.worker.model import TensorSpec
from fastserve.worker.models.tensors import configured, quoted

DEFAULT_MAX_BATCH_ROWS = 64


@dataclass(frozen=True)
class Port:
    """An input or output as the file has it."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1: free
    also: tuple[str, ...] = ()  # other names by which a configuration may call it


@dataclass(frozen=True)
class Resolved:
    """What is served. `inputs[i]` is the port `input_ports[i]` of the file; likewise the outputs."""

    max_batch_rows: int
    batching: str  # why, or why not
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    input_ports: list[int]
    output_ports: list[int]


def resolve(
    config: dict[str, Any], inputs: Sequence[Port], outputs: Sequence[Port], rows_do_not_follow: str
) -> Resolved:
    """`rows_do_not_follow`: "" or why outputs' rows are not those of the inputs. InvalidArgument names the field."""
    rows, reason = _rows(config, inputs, rows_do_not_follow)
    # Without a word about batching the configured dims are the whole shape.
    batches = int(config.get("max_batch_size") or 0) > 0
    input_ports, served_inputs = _side(config, "input", inputs, batches)
    missing = [inputs[i].name for i in range(len(inputs)) if i not in input_ports]
    if missing:
        raise errors.InvalidArgument(f"config.input: input {quoted(missing)} of the model is missing")
    output_ports, served_outputs = _side(config, "output", outputs, batches)
    if rows:
        for spec in (*served_inputs, *served_outputs):
            spec.shape[0] = -1
    return Resolved(rows, reason, served_inputs, served_outputs, input_ports, output_ports)


def _rows(config: dict[str, Any], inputs: Sequence[Port], rows_do_not_follow: str) -> tuple[int, str]:
    asked = config.get("max_batch_size")
    if asked == 0:
        return 0, "off by configuration"
    fixed = [port for port in inputs if not port.shape or port.shape[0] != -1]
    obstacle = rows_do_not_follow
    if fixed:
        obstacle = (
            f'input "{fixed[0].name}" has shape {list(fixed[0].shape)}, without a free dimension in front'
        )
    if asked is None:
        return (0, f"off: {obstacle}") if obstacle else (DEFAULT_MAX_BATCH_ROWS, "rows are free in front")
    if obstacle:
        raise errors.InvalidArgument(f"config.max_batch_size: got {asked}, but {obstacle}")
    return int(asked), "by configuration"


def _side(
    config: dict[str, Any], side: str, ports: Sequence[Port], batches: bool
) -> tuple[list[int], list[TensorSpec]]:
    given = configured(config, side, batches=batches)
    if not given:
        return list(range(len(ports))), [TensorSpec(p.name, p.datatype, list(p.shape)) for p in ports]
    order = []
    for spec in given:
        field = f'config.{side}["{spec.name}"]'
        at = next((i for i, p in enumerate(ports) if spec.name == p.name or spec.name in p.also), None)
        if at is None:
            known = quoted([port.name for port in ports])
            raise errors.InvalidArgument(f"{field}: the model has no such {side}, it has {known}")
        if at in order:
            raise errors.InvalidArgument(f'{field}: the model\'s "{ports[at].name}" is given twice')
        _compatible(spec, ports[at], field)
        order.append(at)
    return order, [_narrowed(spec, ports[at]) for spec, at in zip(given, order, strict=True)]


def _compatible(spec: TensorSpec, port: Port, field: str) -> None:
    if spec.datatype != port.datatype:
        raise errors.InvalidArgument(f"{field}.data_type: got {spec.datatype}, model has {port.datatype}")
    if len(spec.shape) != len(port.shape):
        raise errors.InvalidArgument(f"{field}.dims: got {spec.shape}, model has {list(port.shape)}")
    for at, (got, has) in enumerate(zip(spec.shape, port.shape, strict=True)):
        if -1 not in {got, has} and got != has:
            raise errors.InvalidArgument(f"{field}.dims: shape[{at}]: got {got}, model has {has}")


def _narrowed(spec: TensorSpec, port: Port) -> TensorSpec:
    shape = [has if got == -1 else got for got, has in zip(spec.shape, port.shape, strict=True)]
    return TensorSpec(spec.name, spec.datatype, shape)
