"""What the CUDA lane runs, as Python gives it: models whose step can be captured as a CUDA graph.

The C++ side (csrc/backend/cuda_source.h, which says more) owns streams, device buffers, scratch memory and instantiated graphs,
and runs the batches without Python; a `GraphModel` opens the weights and captures one graph for each (lane, batch size). What
cannot be captured is run batch by batch through `GraphModel.run`: slow, but right.

Handles and addresses are ints (CUstream, CUgraph, CUdeviceptr). Threads: `opener`, `capture` and `close` are called on a loader
thread, one at a time in the process; `run` on the thread of the instance that has the lane. The device's primary context is
current in all of them. Exceptions: those of fastserve.errors keep their code, others become INTERNAL with type and text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastserve import _core


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """Dense, on the device; the shape has the rows of the run in front where the model batches."""

    address: int
    shape: tuple[int, ...]
    bytes: int  # of the shape


@dataclass(frozen=True, slots=True)
class LaneMemory:
    """What a lane lends for its whole life: the same addresses for all sizes, which never run at once. Lanes of one model may run
    at once, so nothing but weights may be shared between them. Addresses are aligned to 256 bytes."""

    lane: int  # 0 .. GraphLoad.lanes - 1
    stream: int  # CU_STREAM_NON_BLOCKING
    # Signature order; room for the largest size; zeroed. 0: the rows do not fix its size, or the model owns it.
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    scratch: int  # GraphModel.lane_scratch_bytes; contents undefined; 0 when none was asked for


@dataclass(frozen=True, slots=True)
class Captured:
    """One size of one lane. The graph stays the model's until close(); the lane instantiates it."""

    graph: int = 0  # 0: it cannot be captured, and `why_not` says why: such batches go through run()
    why_not: str = ""
    # Where the graph reads and writes when the model chose (owns_inputs, owns_outputs); () = where LaneMemory says.
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphLoad:
    """What is to be opened, and where."""

    spec: _core.LoadSpec  # model, version, path, parameters, allowed_rows, max_batch_rows, inputs, outputs
    device: int  # the driver's ordinal
    device_uuid: str  # "GPU-..." or "MIG-..."
    device_name: str
    lanes: int  # of all its instances on this device
    graphs: bool  # False: capture() will not be called (parameter "graphs")
    progress: Callable[[float, str], None]


class GraphModel(Protocol):
    """One loaded version on one device."""

    # Of the model: -1 in front when max_batch_rows > 0. No BYTES, no optional inputs. The same on all devices.
    @property
    def inputs(self) -> Sequence[_core.TensorSpec]: ...
    @property
    def outputs(self) -> Sequence[_core.TensorSpec]: ...
    @property
    def max_batch_rows(self) -> int: ...  # 0: no batch dimension

    # Sizes to capture, ascending, the last one max_batch_rows; () or (1,) without a batch dimension. () for a model that
    # batches: nothing is captured, every batch goes through run() with its real rows.
    @property
    def buckets(self) -> Sequence[int]: ...
    # Activation memory of one lane, the largest of all sizes. 0: none, or the model's own.
    @property
    def lane_scratch_bytes(self) -> int: ...
    # True: the lane allocates none; Captured, or the result of run(), says where they are.
    @property
    def owns_inputs(self) -> bool: ...
    @property
    def owns_outputs(self) -> bool: ...
    @property
    def weights_bytes(self) -> int: ...  # device memory that opening took; 0 = unknown

    @property
    def platform(self) -> str: ...  # OIP metadata: "tensorrt_plan"
    @property
    def properties(
        self,
    ) -> Mapping[str, str]: ...  # "precision", ...; "device", "lanes", "graphs" are the lane's

    def capture(self, memory: LaneMemory, rows: int, /) -> Captured:
        """Warms `rows` up on memory.stream, synchronises that stream, captures the step (thread-local mode). Never the legacy
        stream. For each lane and size, the largest size first. Raising fails the load."""
        ...

    def run(self, memory: LaneMemory, rows: int, inputs: Sequence[DeviceTensor], /) -> Sequence[DeviceTensor]:
        """One batch without a graph: puts the step on memory.stream, on which the inputs are being copied; may wait for that
        stream and for nothing else. With buckets, rows is one of them and padding rows are zero; else the real rows.

        Returns where the outputs are, with the shapes as they came out; () = in memory.outputs, shapes by the signature.
        Output memory of its own must stay until the next run() or capture() of that lane."""
        ...

    def close(self) -> None:
        """No lane runs it any more and the instantiated graphs are gone. Not called on a dead device, where the object is kept
        for ever: freeing memory of a dead context is forbidden."""
        ...


Opener = Callable[[GraphLoad], GraphModel]


def add_graph_backend(core: _core.Engine, name: str, opener: Opener) -> None:
    """Makes `opener` a backend of this engine: called for each version on each device that it is to run on. What it gives is kept
    until the last batch of the version is through. Loading is FAILED_PRECONDITION where there is no GPU."""
    core.add_graph_backend(name, _GraphCalls(opener))


class _GraphCalls:
    """What C++ calls (csrc/bind/cuda_source.cc): plain ints and tuples in both directions."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def open(
        self,
        spec: _core.LoadSpec,
        device: int,
        device_uuid: str,
        device_name: str,
        lanes: int,
        graphs: bool,
        progress: Callable[[float, str], None],
    ) -> _OpenModel:
        load = GraphLoad(spec, device, device_uuid, device_name, lanes, graphs, progress)
        return _OpenModel(self._opener(load))


class _OpenModel:
    def __init__(self, model: GraphModel) -> None:
        self.model = model
        self.facts = (
            list(model.inputs),
            list(model.outputs),
            model.max_batch_rows,
            list(model.buckets),
            model.lane_scratch_bytes,
            model.owns_inputs,
            model.owns_outputs,
            model.weights_bytes,
            model.platform,
            dict(model.properties),
        )

    def capture(
        self, lane: int, stream: int, inputs: list[int], outputs: list[int], scratch: int, rows: int
    ) -> tuple[int, str, list[int], list[int]]:
        memory = LaneMemory(lane, stream, tuple(inputs), tuple(outputs), scratch)
        done = self.model.capture(memory, rows)
        return done.graph, done.why_not, list(done.inputs), list(done.outputs)

    def run(
        self,
        lane: int,
        stream: int,
        inputs: list[int],
        outputs: list[int],
        scratch: int,
        rows: int,
        given: list[tuple[int, tuple[int, ...], int]],
    ) -> list[tuple[int, list[int], int]]:
        memory = LaneMemory(lane, stream, tuple(inputs), tuple(outputs), scratch)
        tensors = [DeviceTensor(address, tuple(shape), size) for address, shape, size in given]
        return [(t.address, list(t.shape), t.bytes) for t in self.model.run(memory, rows, tensors)]

    def close(self) -> None:
        self.model.close()
