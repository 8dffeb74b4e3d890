"""model_warmup against the inputs of the configuration, where it has any; else the engine looks when it has read the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastserve.lifecycle.pbtxt import TextError
from fastserve.lifecycle.tensor_types import datatype_of
from fastserve.lifecycle.warm_up_files import file_name_error

# (path in scheduling.Scheduling, text) -> the error in the words of the file.
MakeError = Callable[[tuple[str | int, ...], str], TextError]


def warm_up_errors(message: Any, error: MakeError) -> Iterator[TextError]:
    known = {tensor.name: tensor for tensor in message.input}
    for index, sample in enumerate(message.model_warmup):
        for name in sorted(sample.inputs):
            value, path = sample.inputs[name], ("warm_up", index, "inputs", name)
            if not value.data_type:
                yield error((*path, "data_type"), "is missing")
            elif value.WhichOneof("input_data_type") is None:
                text = "has no data: give zero_data, random_data or input_data_file"
                yield error(path, text)
            elif known and name not in known:
                text = "the model has no such input; there are " + ", ".join(sorted(known))
                yield error(path, text)
            elif known:
                yield from _row_errors(path, value, known[name], error)
            if value.input_data_file and (wrong := file_name_error(value.input_data_file)):
                yield error((*path, "input_data_file"), wrong)
        for name in sorted(set(known) - set(sample.inputs)):
            if sample.inputs:
                yield error(("warm_up", index, "inputs"), f'input "{name}" is missing')


def _row_errors(
    path: tuple[str | int, ...], value: Any, tensor: Any, error: MakeError
) -> Iterator[TextError]:
    if tensor.data_type and value.data_type != tensor.data_type:
        words = f"got {datatype_of(value.data_type)}, but the input has {datatype_of(tensor.data_type)}"
        yield error((*path, "data_type"), words)
    fits = len(value.dims) == len(tensor.dims) and all(
        want in (-1, got) for got, want in zip(value.dims, tensor.dims, strict=True)
    )
    if value.dims and not fits:
        words = f"got {list(value.dims)}, but the input has {list(tensor.dims)}"
        yield error((*path, "dims"), words)
