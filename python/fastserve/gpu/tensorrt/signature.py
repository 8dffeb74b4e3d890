"""The tensors of an engine, in our words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastserve import errors
from fastserve.gpu.tensorrt.libraries import Library

DATATYPES = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "UINT8": "UINT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "BOOL": "BOOL",
}
ITEM_BYTES = {"FP32": 4, "FP16": 2, "BF16": 2, "INT8": 1, "UINT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1}


@dataclass(frozen=True)
class Port:
    name: str
    is_input: bool
    datatype: str
    shape: tuple[int, ...]  # the engine's; -1: a profile says, or only the run
    of_shapes: bool = False  # its values decide shapes (a shape tensor)
    on_host: bool = False  # TensorRT reads or writes it in host memory

    @property
    def field(self) -> str:
        return f'{"inputs" if self.is_input else "outputs"}["{self.name}"]'


def dims_of(dims: Any) -> tuple[int, ...]:
    return tuple(int(dim) for dim in dims)


def read_ports(library: Library, engine: Any) -> list[Port]:
    """In the engine's order. Unimplemented: a datatype, format or alias that requests have no words for."""
    return [_port(library, engine, engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]


def _port(library: Library, engine: Any, name: str) -> Port:
    trt = library.trt
    datatype = engine.get_tensor_dtype(name).name
    port = Port(
        name,
        is_input=engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
        datatype=DATATYPES.get(datatype, ""),
        shape=dims_of(engine.get_tensor_shape(name)),
        of_shapes=bool(engine.is_shape_inference_io(name)),
        on_host=engine.get_tensor_location(name) == trt.TensorLocation.HOST,
    )
    if not port.datatype:
        raise errors.Unimplemented(
            f"{port.field}.datatype: the plan has {datatype}, which no request can carry; there are "
            + ", ".join(DATATYPES)
        )
    form = engine.get_tensor_format(name)
    if form != trt.TensorFormat.LINEAR:
        raise errors.Unimplemented(
            f"{port.field}: the plan wants the format {form.name}, want LINEAR: build it without formats of its own"
        )
    # 11 and later: a cache that is updated in place.
    aliased = getattr(engine, "get_aliased_input_tensor", None)
    if not port.is_input and aliased is not None and aliased(name):
        raise errors.Unimplemented(
            f'{port.field}: shares its memory with inputs["{aliased(name)}"], which belongs to one request'
        )
    return port
