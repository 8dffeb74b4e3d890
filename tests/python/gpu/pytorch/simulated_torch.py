"""torch on the CPU with a simulated torch.cuda: what the loader calls, in order, on real memory. No GPU is involved."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

UUID = "GPU-0123"


class SimulatedTorch:
    """Everything but `cuda`, `device` and `as_tensor` is torch's own. `calls`: what was called of `cuda`."""

    def __init__(self, torch: Any, uuid: str = "0123") -> None:
        self._torch = torch
        self.calls: list[str] = []
        self.cuda = SimulatedCuda(torch, self.calls, uuid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def device(self, kind: str, ordinal: int) -> Any:
        assert (kind, ordinal) == ("cuda", 0)
        return self._torch.device("cpu")

    def as_tensor(self, held: Any, device: Any) -> Any:
        face = held.__cuda_array_interface__
        dtype = np.dtype(face["typestr"])
        size = int(np.prod(face["shape"])) * dtype.itemsize
        assert face["data"][1] is False
        assert face["strides"] is None
        raw = (ctypes.c_char * size).from_address(face["data"][0])
        return self._torch.from_numpy(np.frombuffer(raw, dtype).reshape(face["shape"]))


class SimulatedCuda:
    def __init__(self, torch: Any, calls: list[str], uuid: str) -> None:
        self._calls = calls
        self._uuid = uuid
        self._pools = 0
        self.on = ""  # the current stream
        self.capturing = False
        self.captures_fail = False
        self.default_generators = [torch.default_generator]

    def is_available(self) -> bool:
        return True

    def get_device_properties(self, ordinal: int) -> Any:
        return SimpleNamespace(uuid=self._uuid)

    def memory_allocated(self, device: Any) -> int:
        return 0

    def empty_cache(self) -> None:
        self._calls.append("empty_cache")

    def set_per_process_memory_fraction(self, fraction: float, device: Any) -> None:
        self._calls.append(f"limit {fraction}")

    def graph_pool_handle(self) -> str:
        self._pools += 1
        return f"pool{self._pools}"

    def ExternalStream(self, handle: int, device: Any) -> Any:
        return SimpleNamespace(
            name=f"stream{handle}", synchronize=lambda: self._calls.append(f"synchronize stream{handle}")
        )

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.on = self.on, stream.name
        try:
            yield
        finally:
            self.on = before

    def CUDAGraph(self, *, keep_graph: bool) -> Any:
        assert keep_graph, "raw_cuda_graph() needs it"
        return SimulatedGraph(self)


class SimulatedGraph:
    made = 0

    def __init__(self, cuda: SimulatedCuda) -> None:
        self._cuda = cuda
        SimulatedGraph.made += 1
        self._number = 1000 + SimulatedGraph.made

    def capture_begin(self, *, pool: str, capture_error_mode: str) -> None:
        self._cuda._calls.append(f"begin {self._cuda.on} {pool} {capture_error_mode}")
        self._cuda.capturing = True

    def capture_end(self) -> None:
        self._cuda._calls.append(f"end {self._cuda.on}")
        self._cuda.capturing = False
        if self._cuda.captures_fail:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nAdvice")

    def raw_cuda_graph(self) -> int:
        return self._number
