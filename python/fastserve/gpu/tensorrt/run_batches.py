"""An engine batch by batch, for what cannot be captured: outputs whose size the data decide, shape tensors, free dimensions,
weight streaming, or graphs that are switched off. Slow, but right.

A lane has one context for each profile here, whose shapes and addresses change with the batch.
Thread: that of the lane's instance, one batch at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from fastserve import errors
from fastserve.gpu.source import DeviceTensor, LaneMemory
from fastserve.gpu.tensorrt.driver import Driver
from fastserve.gpu.tensorrt.layout import Layout
from fastserve.gpu.tensorrt.libraries import Library
from fastserve.gpu.tensorrt.signature import ITEM_BYTES, Port, dims_of


class DeviceBlock:
    """Device memory that grows; what was in it is lost then."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.address, self.size = 0, 0

    def room(self, size: int) -> int:
        """The address of at least so many bytes. ResourceExhausted."""
        if size > self.size or not self.address:
            self.free()
            self.address = self._driver.allocate(max(size, 1))
            self.size = size
        return self.address

    def free(self) -> None:
        if self.address:
            with suppress(errors.FastserveError):
                self._driver.free(self.address)
        self.address, self.size = 0, 0


@dataclass
class _Given:
    """Where TensorRT wrote an output of unknown size."""

    block: DeviceBlock
    shape: tuple[int, ...] = ()
    error: errors.FastserveError | None = None
    allocator: Any = None  # TensorRT does not keep it alive


class BatchRunner:
    """Of one lane."""

    def __init__(
        self, library: Library, driver: Driver, layout: Layout, new_context: Callable[[LaneMemory, int], Any]
    ) -> None:
        self._library, self._driver, self._layout = library, driver, layout
        self._new_context = new_context
        self._contexts: dict[int, Any] = {}  # by profile
        self._own: dict[str, _Given] = {}  # outputs that have no place in the lane's buffers
        self._host: dict[str, Any] = {}  # tensors that TensorRT reads and writes in host memory

    def run(self, memory: LaneMemory, rows: int, inputs: Sequence[DeviceTensor]) -> Sequence[DeviceTensor]:
        """() = everything is in memory.outputs, with the shapes of the signature."""
        layout = self._layout
        shapes = {p.name: t.shape for p, t in zip(layout.inputs, inputs, strict=True)}
        data = {p.name: shapes[p.name] for p in layout.inputs if not p.of_shapes}
        profile = layout.profile_of.get(rows) if layout.sizes else None
        context = self._context(memory, layout.best_profile(data) if profile is None else profile)
        for port, tensor in zip(layout.inputs, inputs, strict=True):
            self._set_shape(context, port, tensor.shape)
            self._set_address(context, port, self._readable(port, tensor, memory.stream))
        if missing := self._library.made("inferring shapes", context.infer_shapes, errors.InvalidArgument):
            raise errors.Internal(f"{self._library.text}: the shapes of {', '.join(missing)} are not known")
        places = [
            self._place(context, port, address)
            for port, address in zip(layout.outputs, memory.outputs, strict=True)
        ]
        try:
            self._library.made(f"running {rows} rows", lambda: context.execute_async_v3(memory.stream))
        except errors.Internal:
            self._raise_refused()  # an allocation of ours, which TensorRT only knows to have failed
            raise
        self._raise_refused()
        return self._results(context, memory, rows, places)

    def close(self) -> None:
        self._contexts.clear()
        for given in self._own.values():
            given.block.free()
        self._own.clear()
        self._host.clear()

    def _context(self, memory: LaneMemory, profile: int) -> Any:
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(memory, profile)
        return self._contexts[profile]

    def _set_shape(self, context: Any, port: Port, shape: tuple[int, ...]) -> None:
        self._library.made(
            f"setting the shape of '{port.name}' to {list(shape)}",
            lambda: context.set_input_shape(port.name, shape),
            errors.InvalidArgument,
        )

    def _set_address(self, context: Any, port: Port, address: int) -> None:
        self._library.made(
            f"setting the address of '{port.name}'", lambda: context.set_tensor_address(port.name, address)
        )

    def _readable(self, port: Port, tensor: DeviceTensor, stream: int) -> int:
        """The address of an input: a copy on the host where TensorRT reads its values there."""
        if not port.on_host:
            return tensor.address
        buffer = self._buffer(port, tensor.bytes)
        self._driver.to_host(ctypes.addressof(buffer), tensor.address, tensor.bytes, stream)
        self._driver.synchronize(stream)
        return ctypes.addressof(buffer)

    def _buffer(self, port: Port, size: int) -> Any:
        buffer = self._host.get(port.name)
        if buffer is None or ctypes.sizeof(buffer) < size:
            buffer = self._host[port.name] = ctypes.create_string_buffer(max(size, 1))
        return buffer

    def _place(self, context: Any, port: Port, address: int) -> tuple[int, tuple[int, ...]]:
        """(where TensorRT writes, the shape): address 0 and no shape where its allocator decides."""
        shape = dims_of(context.get_tensor_shape(port.name))
        if -1 in shape:
            given = self._given(port)
            given.shape, given.error = (), None
            self._library.made(
                f"setting the allocator of '{port.name}'",
                lambda: context.set_output_allocator(port.name, given.allocator),
            )
            return 0, ()
        size = prod(shape) * ITEM_BYTES[port.datatype]
        if port.on_host:
            self._set_address(context, port, ctypes.addressof(self._buffer(port, size)))
            return address or self._given(port).block.room(size), shape
        place = address or self._given(port).block.room(size)
        self._set_address(context, port, place)
        return place, shape

    def _given(self, port: Port) -> _Given:
        if port.name not in self._own:
            given = _Given(DeviceBlock(self._driver))
            given.allocator = _allocator(self._library.trt, given)
            self._own[port.name] = given
        return self._own[port.name]

    def _raise_refused(self) -> None:
        for given in self._own.values():
            if given.error is not None:
                raise given.error

    def _results(
        self, context: Any, memory: LaneMemory, rows: int, places: Sequence[tuple[int, tuple[int, ...]]]
    ) -> Sequence[DeviceTensor]:
        results, usual = [], True
        for port, address, (place, shape) in zip(self._layout.outputs, memory.outputs, places, strict=True):
            if not place:
                given = self._own[port.name]
                place, shape = given.block.address, given.shape
            size = prod(shape) * ITEM_BYTES[port.datatype]
            if port.on_host:
                self._driver.synchronize(memory.stream)
                self._driver.to_device(place, ctypes.addressof(self._host[port.name]), size, memory.stream)
                self._driver.synchronize(memory.stream)  # the host's copy is written again by the next batch
            usual = usual and place == address and shape == self._layout.with_rows(port.shape, rows)
            results.append(DeviceTensor(place, shape, size))
        return () if usual else results


def _allocator(trt: Any, given: _Given) -> Any:
    class Allocator(trt.IOutputAllocator):  # type: ignore[misc]
        """Called by execute_async_v3, on its thread; nothing may leave it as an exception."""

        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, _name: str, _memory: int, size: int, _alignment: int) -> int:
            try:
                return given.block.room(size)
            except errors.FastserveError as error:
                given.error = error
                return 0  # TensorRT gives up

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, _name: str, shape: Any) -> None:
            given.shape = dims_of(shape)

    return Allocator()
