"""What is called of torch.cuda: streams and memory that are not torch's own, captures, and the device's generator.

Thread: that of the caller. No call here waits for the whole device: other models run on it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fastserve import errors

# BF16 has no letter in numpy's protocol: such memory is taken as INT16 and viewed.
_TYPESTR = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "float16": "<f2",
    "bfloat16": "<i2",
    "float32": "<f4",
    "float64": "<f8",
    **{f"{sign}int{bits}": f"<{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (16, 32, 64)},
}


class TorchDevice:
    """One GPU, by the driver's ordinal, which is torch's too (both go by CUDA_VISIBLE_DEVICES)."""

    def __init__(self, torch: Any, ordinal: int, uuid: str) -> None:
        """FailedPrecondition when torch sees no GPU, or another one under this number."""
        if not torch.cuda.is_available():
            reason = (
                "it is built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda}"
            )
            raise errors.FailedPrecondition(
                f"instance_group: KIND_GPU, but PyTorch {torch.__version__} sees no GPU ({reason})"
            )
        self.torch = torch
        self.device = torch.device("cuda", ordinal)
        self._ordinal = ordinal
        seen = str(getattr(torch.cuda.get_device_properties(ordinal), "uuid", ""))
        # A MIG instance: torch may give its GPU's.
        if seen and uuid.startswith("GPU-") and seen.removeprefix("GPU-") != uuid.removeprefix("GPU-"):
            raise errors.FailedPrecondition(
                f"PyTorch's GPU {ordinal} is {seen}, the driver's is {uuid}: "
                "was CUDA_VISIBLE_DEVICES or CUDA_DEVICE_ORDER changed after the start?"
            )

    def limit(self, fraction: float) -> None:
        """Of the device's memory, for all that torch allocates in this process: the last word counts."""
        self.torch.cuda.set_per_process_memory_fraction(fraction, self.device)

    def allocated_bytes(self) -> int:
        return int(self.torch.cuda.memory_allocated(self.device))

    def free_cached(self) -> None:
        """Gives what torch keeps for later back to the device, where others want it."""
        self.torch.cuda.empty_cache()

    def stream(self, handle: int) -> Any:
        """A torch stream of a CUstream; does not own it."""
        return self.torch.cuda.ExternalStream(handle, device=self.device)

    def pool(self) -> Any:
        return self.torch.cuda.graph_pool_handle()

    def tensor_at(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """A dense tensor over memory of somebody else's, who keeps it."""
        torch = self.torch
        held = _Memory(address, shape, _TYPESTR[str(dtype).removeprefix("torch.")])
        tensor = torch.as_tensor(held, device=self.device)
        return tensor.view(dtype) if dtype == torch.bfloat16 else tensor

    @contextmanager
    def on(self, stream: Any) -> Iterator[None]:
        """Work of this thread goes to the stream; no gradients."""
        with self.torch.inference_mode(), self.torch.cuda.stream(stream):
            yield

    def random_state(self) -> Any:
        """Of the device's generator: moves when an operation draws from it."""
        return self.torch.cuda.default_generators[self._ordinal].get_state()

    def capture(self, pool: Any, step: Any) -> tuple[Any, Any]:
        """(CUDAGraph that keeps its CUgraph, what `step` returned), captured on the current stream.

        Not torch.cuda.graph: that waits for the whole device and empties torch's cache first. RuntimeError: it cannot be
        captured; the stream and the context stay usable."""
        graph = self.torch.cuda.CUDAGraph(keep_graph=True)
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            result = step()
        except BaseException:
            with suppress(RuntimeError):  # the capture is broken: what broke it says more
                graph.capture_end()
            raise
        graph.capture_end()
        return graph, result


class _Memory:
    """CUDA array interface, version 2: without a stream, because order is ours to see to."""

    def __init__(self, address: int, shape: tuple[int, ...], typestr: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": typestr,
            "strides": None,
            "version": 2,
        }
