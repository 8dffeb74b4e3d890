"""An engine as a GraphModel: warmed up and captured on each lane's own stream.

Each (lane, size) has an execution context of its own, because a captured graph has the addresses of tensors and activations
in it: neither shape nor profile nor address of that context ever changes afterwards. Activations of all sizes of a lane share
the lane's scratch memory (USER_MANAGED): they never run at once; lanes do not share. Source: TensorRT's and TensorRT-RTX's
guides ("CUDA graphs", "Within-inference multi-streaming")."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from fastserve import _core, errors
from fastserve.gpu.source import Captured, DeviceTensor, LaneMemory
from fastserve.gpu.tensorrt.driver import Driver
from fastserve.gpu.tensorrt.engine import Engine, why_not_captured
from fastserve.gpu.tensorrt.layout import Layout
from fastserve.gpu.tensorrt.run_batches import BatchRunner
from fastserve.gpu.tensorrt.runtime_cache import RuntimeCache
from fastserve.gpu.tensorrt.signature import Port, dims_of

logger = logging.getLogger("fastserve.gpu.tensorrt")


@dataclass
class _Lane:
    aux_streams: list[int]
    runner: BatchRunner
    contexts: list[Any] = field(default_factory=list)  # of captured graphs
    graphs: list[int] = field(default_factory=list)


class TensorRTGraphModel:
    """One engine on one GPU; fastserve.gpu.source.GraphModel."""

    owns_inputs = False
    owns_outputs = False
    platform = "tensorrt_plan"

    def __init__(
        self,
        opened: Engine,
        driver: Driver,
        layout: Layout,
        properties: Mapping[str, str],
        *,
        lanes: int = 1,
        runtime_cache: RuntimeCache | None = None,
    ) -> None:
        self._library, self._driver = opened.library, driver
        self._opened: Engine | None = opened
        self._runtime_cache = runtime_cache
        self._lock = threading.Lock()  # contexts are made one at a time
        self._lanes: dict[int, _Lane] = {}
        layout = replace(layout, outputs=self._outputs(layout))
        front = 1 if layout.batches else 0
        unknown = next((p.field for p in layout.outputs if -1 in p.shape[front:]), "")
        if layout.sizes and unknown and layout.batches:
            layout = replace(layout, sizes=(), profile_of={})  # outputs have no room in a batch's buffers
        self._layout = layout
        free = layout.free_dims()
        self._why_not = free or why_not_captured(opened.engine, unknown)
        self._to_warm = lanes * len(layout.sizes)
        self.inputs = [_core.TensorSpec(p.name, p.datatype, list(p.shape)) for p in layout.inputs]
        self.outputs = [_core.TensorSpec(p.name, p.datatype, list(p.shape)) for p in layout.outputs]
        self.max_batch_rows = layout.max_batch_rows
        self.buckets: tuple[int, ...] = layout.sizes
        self.lane_scratch_bytes = self._scratch_bytes(layout)
        self.weights_bytes = opened.weights_bytes()
        self.properties: Mapping[str, str] = {
            **properties,
            "runtime": self._library.text,
            "profiles": str(opened.engine.num_optimization_profiles),
            **({"not_captured": self._why_not} if self._why_not else {}),
        }

    def capture(self, memory: LaneMemory, rows: int, /) -> Captured:
        if self._why_not:
            return Captured(why_not=self._why_not)
        lane = self._lane(memory)
        context = self._ready_context(memory, rows, lane)
        # Everything lazy happens here, because none of it may happen under the capture.
        self._library.made(
            f"warming up {rows} rows", lambda: context.execute_async_v3(memory.stream), errors.InvalidArgument
        )
        self._driver.synchronize(memory.stream)
        self._one_more_warm()
        capturable = getattr(context, "is_stream_capturable", None)  # TensorRT-RTX has it
        if capturable is not None and not capturable(memory.stream):
            return Captured(why_not=f"{self._library.text} says that {rows} rows cannot be captured")
        graph, why_not = self._captured(context, memory.stream, rows)
        if not graph:
            logger.warning("lane %d: %s", memory.lane, why_not)
            return Captured(why_not=why_not)
        lane.contexts.append(context)
        lane.graphs.append(graph)
        return Captured(graph=graph)

    def run(self, memory: LaneMemory, rows: int, inputs: Sequence[DeviceTensor], /) -> Sequence[DeviceTensor]:
        return self._lane(memory).runner.run(memory, rows, inputs)

    def close(self) -> None:
        """Contexts before the engine, the engine before its runtime."""
        for lane in self._lanes.values():
            for graph in lane.graphs:
                self._freed(self._driver.destroy_graph, graph)
            lane.contexts.clear()
            lane.runner.close()
            for stream in lane.aux_streams:
                self._freed(self._driver.destroy_stream, stream)
        self._lanes.clear()
        self._runtime_cache = None
        self._opened = None

    @property
    def _engine(self) -> Any:
        assert self._opened is not None
        return self._opened.engine

    def _freed(self, free: Any, handle: int) -> None:
        with suppress(errors.FastserveError):  # nobody is left to whom it would matter
            free(handle)

    def _scratch_bytes(self, layout: Layout) -> int:
        """The largest of the profiles that are used."""
        used = set(layout.profile_of.values()) or {profile.index for profile in layout.profiles}
        return max(int(self._engine.get_device_memory_size_for_profile_v2(index)) for index in used)

    def _outputs(self, layout: Layout) -> tuple[Port, ...]:
        """With the dimensions that follow from the inputs' and are the same for every size.

        InvalidArgument: an output does not grow with the rows."""
        if layout.free_dims() or not layout.sizes:
            return layout.outputs
        rows = layout.sizes[-1]
        stream = self._driver.new_stream()
        try:
            context = self._new_context(layout.profile_of[rows], stream)
            self._set_shapes(context, layout.shapes(rows))
            if self._missing(context):
                return layout.outputs  # values of shape tensors are missing
            found = [dims_of(context.get_tensor_shape(port.name)) for port in layout.outputs]
            self._driver.synchronize(stream)
        finally:
            self._driver.destroy_stream(stream)
        return tuple(
            _sized(port, dims, rows, layout.batches) for port, dims in zip(layout.outputs, found, strict=True)
        )

    def _lane(self, memory: LaneMemory) -> _Lane:
        with self._lock:
            lane = self._lanes.get(memory.lane)
            if lane is None:
                # Its own streams, which are certain not to wait for the legacy one.
                streams = [self._driver.new_stream() for _ in range(int(self._engine.num_aux_streams))]
                runner = BatchRunner(self._library, self._driver, self._layout, self._run_context)
                lane = self._lanes[memory.lane] = _Lane(streams, runner)
            return lane

    def _run_context(self, memory: LaneMemory, profile: int) -> Any:
        """Of the way batch by batch."""
        lane = self._lane(memory)
        with self._lock:
            context = self._new_context(profile, memory.stream)
            self._lend(context, memory, lane)
            self._driver.synchronize(memory.stream)
        return context

    def _ready_context(self, memory: LaneMemory, rows: int, lane: _Lane) -> Any:
        """With everything set that it is to keep for good."""
        with self._lock:
            context = self._new_context(self._layout.profile_of[rows], memory.stream)
            self._lend(context, memory, lane)
            self._set_shapes(context, self._layout.shapes(rows))
            ports = zip(
                (*self._layout.inputs, *self._layout.outputs), (*memory.inputs, *memory.outputs), strict=True
            )
            for port, address in ports:
                self._set_address(context, port, address)
            if missing := self._missing(context):
                raise errors.Internal(
                    f"{self._library.text}: the shapes of {', '.join(missing)} are not known"
                )
            self._driver.synchronize(memory.stream)
        return context

    def _new_context(self, profile: int, stream: int) -> Any:
        library, engine = self._library, self._engine
        strategy = library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        cache = self._runtime_cache
        context = library.made(
            "creating an execution context",
            lambda: engine.create_execution_context(
                cache.config(strategy) if cache is not None else strategy
            ),
        )
        library.made(
            f"choosing profile {profile}", lambda: context.set_optimization_profile_async(profile, stream)
        )
        return context

    def _lend(self, context: Any, memory: LaneMemory, lane: _Lane) -> None:
        if self.lane_scratch_bytes:
            self._library.done(
                "lending activation memory",
                lambda: context.set_device_memory(memory.scratch, self.lane_scratch_bytes),
            )
        if lane.aux_streams:
            self._library.done("lending streams", lambda: context.set_aux_streams(lane.aux_streams))

    def _set_shapes(self, context: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            self._library.made(
                f"setting the shape of '{name}' to {list(shape)}",
                lambda name=name, shape=shape: context.set_input_shape(name, shape),  # type: ignore[misc]
            )

    def _set_address(self, context: Any, port: Port, address: int) -> None:
        self._library.made(
            f"setting the address of '{port.name}'", lambda: context.set_tensor_address(port.name, address)
        )

    def _missing(self, context: Any) -> list[str]:
        return self._library.made("inferring shapes", context.infer_shapes, errors.InvalidArgument)

    def _captured(self, context: Any, stream: int, rows: int) -> tuple[int, str]:
        """(graph, "") or (0, why not): the context stays good for the other way."""
        mark = self._library.lines.mark()
        self._driver.begin_capture(stream)
        ran = False
        try:
            ran = bool(context.execute_async_v3(stream))
        finally:
            graph = self._driver.end_capture(stream)  # whatever happened, or the stream stays unusable
        if ran and graph:
            return graph, ""
        if graph:
            self._freed(self._driver.destroy_graph, graph)
        return 0, self._library.worded(f"capturing {rows} rows", mark)

    def _one_more_warm(self) -> None:
        """After the last one, what was compiled on this GPU meanwhile is kept for the next start."""
        self._to_warm -= 1
        if self._to_warm == 0 and self._runtime_cache is not None:
            self._runtime_cache.keep()


def _sized(port: Port, dims: tuple[int, ...], rows: int, batches: bool) -> Port:
    if not batches:
        return replace(port, shape=dims)
    if dims[0] not in {rows, -1}:
        raise errors.InvalidArgument(
            f"max_batch_size: want 0: {port.field} has {dims[0]} rows when the inputs have {rows}"
        )
    return replace(port, shape=(-1, *dims[1:]))
