"""The few functions of the CUDA driver that TensorRT's side needs: captures, streams, memory of the way batch by batch.

The same libcuda.so.1 that the C++ side has opened (csrc/backend/cuda_driver.h), which found a GPU before anything here is called.
Names are those of the binary interface, which NVIDIA keeps. Thread: any, with the device's primary context current.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from fastserve import errors

_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGraphDestroy": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamCreateWithPriority": (POINTER(c_void_p), c_uint, c_int),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuStreamSynchronize": (c_void_p,),
}
_OUT_OF_MEMORY = 2
_THREAD_LOCAL = (
    1  # CU_STREAM_CAPTURE_MODE: calls of other threads neither spoil the capture nor are spoiled by it
)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the legacy stream


class Driver:
    def __init__(self, library: str = "libcuda.so.1") -> None:
        """FailedPrecondition: it cannot be opened, or is too old."""
        try:
            opened = ctypes.CDLL(library)
            self._calls = {name: getattr(opened, name) for name in _FUNCTIONS}
        except (OSError, AttributeError) as error:
            raise errors.FailedPrecondition(f"the NVIDIA driver cannot be used: {error}") from None
        for name, function in self._calls.items():
            function.argtypes, function.restype = _FUNCTIONS[name], c_int

    def version(self) -> int:
        """Of the CUDA that it was made for: 13010 is 13.1."""
        number = c_int()
        self._call("cuDriverGetVersion", byref(number))
        return number.value

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """The graph; 0: the capture is broken. Either way the stream captures no more."""
        graph = c_void_p()
        result = self._calls["cuStreamEndCapture"](stream, byref(graph))
        return 0 if result else graph.value or 0

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphDestroy", graph)

    def synchronize(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def new_stream(self) -> int:
        stream = c_void_p()
        self._call("cuStreamCreateWithPriority", byref(stream), _NON_BLOCKING, 0)
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy_v2", stream)

    def allocate(self, size: int) -> int:
        """ResourceExhausted: the device has no more. Aligned to 256 bytes."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), size)
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)

    def to_host(self, to: int, address: int, size: int, stream: int) -> None:
        """Puts a copy on the stream; `to` is a host address."""
        self._call("cuMemcpyDtoHAsync_v2", to, address, size, stream)

    def to_device(self, address: int, host: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync_v2", address, host, size, stream)

    def _call(self, name: str, *arguments: Any) -> None:
        result = self._calls[name](*arguments)
        if not result:
            return
        text = c_char_p()
        self._calls["cuGetErrorName"](result, byref(text))
        message = f"{name.partition('_v')[0]}: {(text.value or b'CUDA error').decode()} ({result})"
        raise errors.ResourceExhausted(message) if result == _OUT_OF_MEMORY else errors.Internal(message)
