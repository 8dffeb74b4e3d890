"""A PyTorch program as a GraphModel: warmed up and captured on each lane's own stream.

Warm-up and capture happen on the stream of the lane, because torch keeps one cuBLAS workspace for each (thread's handle, stream):
two lanes captured on one stream would write to the same one. The sizes of a lane share one memory pool, which is safe since they
never run at once, in any order; lanes do not share. Inputs are the lane's buffers, outputs stand where the capture put them.
The graphs are not replayed by torch: C++ instantiates and launches them.
Source: torch/cuda/graphs.py and the notes "CUDA semantics: CUDA graphs" of PyTorch 2.11 to 2.13.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastserve import _core, errors
from fastserve.gpu.source import Captured, DeviceTensor, LaneMemory
from fastserve.worker.models.torch_models import datatype_of, dtype_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastserve.gpu.torch.device import TorchDevice
    from fastserve.worker.models.torch_models import TorchModel

logger = logging.getLogger("fastserve.gpu.torch")

# TorchScript's executor optimises by what it saw in two runs; libraries choose algorithms and load kernels in the first.
_WARM_RUNS = 3


@dataclass
class _Lane:
    stream: Any
    pool: Any
    inputs: list[Any] = field(default_factory=list)  # over the lane's buffers, of the largest size
    kept: list[Any] = field(default_factory=list)  # graphs and their outputs, until close()
    ran: list[Any] = field(default_factory=list)  # outputs of the last run()
    why_not: str = ""


class TorchGraphModel:
    """One program on one GPU; fastserve.gpu.source.GraphModel."""

    lane_scratch_bytes = 0
    owns_inputs = False
    owns_outputs = True

    def __init__(
        self, device: TorchDevice, program: TorchModel, sizes: Sequence[int], weights_bytes: int = 0
    ) -> None:
        """`sizes`: those to capture; (): every batch goes through run(). InvalidArgument: an input is optional."""
        described = program.description
        if optional := [spec.name for spec in described.inputs if spec.optional]:
            raise errors.InvalidArgument(
                f'inputs["{optional[0]}"]: is optional, and PyTorch models take all of theirs'
            )
        self._device = device
        self._program: TorchModel | None = program
        self._specs_in, self._specs_out = described.inputs, described.outputs
        self._dtypes = [dtype_of(device.torch, spec.datatype) for spec in described.inputs]
        self._lanes: dict[int, _Lane] = {}
        self.max_batch_rows = described.max_batch_rows
        self.inputs = [_core.TensorSpec(s.name, s.datatype, s.shape) for s in described.inputs]
        self.outputs = [_core.TensorSpec(s.name, s.datatype, s.shape) for s in described.outputs]
        free = self._free_dims()
        self.buckets: tuple[int, ...] = () if free else tuple(sizes)
        self.weights_bytes = weights_bytes
        self.platform = described.platform
        self.properties: Mapping[str, str] = {
            **{
                name: text for name, text in described.properties.items() if name not in {"device", "threads"}
            },
            **({"not_captured": free} if free else {}),
        }

    def _free_dims(self) -> str:
        """Why there is nothing to capture: sizes that the rows do not fix. "" = nothing is in the way."""
        front = 1 if self.max_batch_rows else 0
        for spec in self._specs_in:
            if -1 in spec.shape[front:]:
                return f'inputs["{spec.name}"] has free dimensions {spec.shape[front:]}'
        return ""

    def capture(self, memory: LaneMemory, rows: int, /) -> Captured:
        lane = self._lane(memory)
        if lane.why_not:
            return Captured(why_not=lane.why_not)
        inputs = self._views(lane, memory, rows)
        with self._device.on(lane.stream):
            self._warm(lane, inputs, rows)
            try:
                graph, outputs = self._device.capture(lane.pool, lambda: self._step(inputs, rows))
                handle = graph.raw_cuda_graph()
            except RuntimeError as error:
                lane.why_not = f"PyTorch cannot capture {rows} rows: {_reason(error)}"
                logger.warning("lane %d: %s", memory.lane, lane.why_not)
                return Captured(why_not=lane.why_not)
        lane.kept.append((graph, inputs, outputs))
        return Captured(graph=int(handle), outputs=tuple(tensor.data_ptr() for tensor in outputs))

    def run(self, memory: LaneMemory, rows: int, inputs: Sequence[DeviceTensor], /) -> Sequence[DeviceTensor]:
        lane = self._lane(memory)
        with self._device.on(lane.stream), _worded(rows, errors.Internal):
            tensors = [
                self._device.tensor_at(given.address, given.shape, dtype)
                for given, dtype in zip(inputs, self._dtypes, strict=True)
            ]
            lane.ran = self._step(tensors, rows)
        return [DeviceTensor(t.data_ptr(), tuple(t.shape), t.numel() * t.element_size()) for t in lane.ran]

    def close(self) -> None:
        self._lanes.clear()
        self._program = None
        gc.collect()  # modules have cycles
        self._device.free_cached()

    def _lane(self, memory: LaneMemory) -> _Lane:
        lane = self._lanes.get(memory.lane)
        if lane is None:
            lane = _Lane(self._device.stream(memory.stream), self._device.pool())
            self._lanes[memory.lane] = lane
        return lane

    def _views(self, lane: _Lane, memory: LaneMemory, rows: int) -> list[Any]:
        """The lane's buffers as tensors of so many rows. The first call is for the largest size."""
        if not lane.inputs:
            most = rows if self.max_batch_rows else None
            lane.inputs = [
                self._device.tensor_at(address, _with_rows(spec.shape, most), dtype)
                for address, spec, dtype in zip(memory.inputs, self._specs_in, self._dtypes, strict=True)
            ]
        return [tensor[:rows] for tensor in lane.inputs] if self.max_batch_rows else list(lane.inputs)

    def _warm(self, lane: _Lane, inputs: list[Any], rows: int) -> None:
        """InvalidArgument: it fails with so many rows, or draws random numbers where no walk through it could tell."""
        before = self._device.random_state()
        with _worded(rows, errors.InvalidArgument):
            for _ in range(_WARM_RUNS):
                self._step(inputs, rows)
            lane.stream.synchronize()
        if not self._device.torch.equal(before, self._device.random_state()):
            raise errors.InvalidArgument(refusal("it moved the GPU's generator"))

    def _step(self, inputs: list[Any], rows: int) -> list[Any]:
        assert self._program is not None
        names = [spec.name for spec in self._specs_in]
        results = self._program.call(dict(zip(names, inputs, strict=True)))
        return [self._checked(i, results.get(spec.name), rows) for i, spec in enumerate(self._specs_out)]

    def _checked(self, index: int, result: Any, rows: int) -> Any:
        """Internal: another type, datatype, place or shape than described. Dense, if need be by a copy in the graph."""
        spec = self._specs_out[index]
        field_name = f'outputs["{spec.name}"]'
        if not isinstance(result, self._device.torch.Tensor):
            raise errors.Internal(f"{field_name}: got {type(result).__name__}, want a tensor")
        if datatype_of(result.dtype) != spec.datatype:
            raise errors.Internal(f"{field_name}.datatype: got {result.dtype}, want {spec.datatype}")
        if result.device != self._device.device:
            raise errors.Internal(f"{field_name}: is on {result.device}, want {self._device.device}")
        want = _with_rows(spec.shape, rows if self.max_batch_rows else None)
        got = tuple(result.shape)
        if len(got) != len(want) or any(w not in {-1, g} for g, w in zip(got, want, strict=True)):
            raise errors.Internal(f"{field_name}.shape: got {list(got)}, want {list(want)}")
        return result.contiguous()


def refusal(what: str) -> str:
    return (
        f"the program draws random numbers ({what}), and a captured graph would repeat them: export it in eval mode, "
        'or set parameters["graphs"] to "off", or use KIND_CPU'
    )


def _with_rows(shape: Sequence[int], rows: int | None) -> tuple[int, ...]:
    return tuple(shape) if rows is None else (rows, *shape[1:])


@contextmanager
def _worded(rows: int, kind: type[errors.FastserveError]) -> Iterator[None]:
    """torch's errors as ours; it tells no wrong value from a wrong program."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise errors.ResourceExhausted(f"PyTorch, {rows} rows: {_reason(error)}") from None
        raise kind(f"PyTorch, {rows} rows: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """CUDA's errors are followed by lines of advice; TorchScript puts a traceback before them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return next((line for line in lines if "CUDA" in line or "Error" in line), lines[-1])
