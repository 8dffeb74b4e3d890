"""What a plan says about itself in its first bytes; no library is needed for it.

    offset 0   tag: "ftrt" TensorRT, "vtrt" TensorRT-RTX
    offset 4   version of the serialization, 32 bits: the rest holds for 0
    offset 16  size of the file, 64 bits (seen in plans of TensorRT-RTX 1.7; not used for others)
    offset 24  version that built it, 4 bytes: 11, 4, 0, 106

Source: trtexec --getPlanVersionOnly (NVIDIA/TensorRT, samples/trtexec), and plans built with TensorRT-RTX 1.7.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastserve import errors
from fastserve.gpu.tensorrt.libraries import NAMES, RTX, TENSORRT

HEADER_BYTES = 28
_TAGS = {b"ftrt": TENSORRT, b"vtrt": RTX}


@dataclass(frozen=True)
class PlanHeader:
    library: str  # tensorrt or tensorrt_rtx
    version: str  # "11.4.0.106"; "" where the header does not say it in this place

    @property
    def text(self) -> str:
        return f"{NAMES[self.library]} {self.version}".strip()


def read_header(start: bytes | memoryview, size: int) -> PlanHeader:
    """`start`: the first HEADER_BYTES of a file of `size` bytes. InvalidArgument: it is no plan, or not the whole of it."""
    start = bytes(start[:HEADER_BYTES])
    library = _TAGS.get(start[:4])
    if library is None:
        raise errors.InvalidArgument(
            f"is no TensorRT plan: begins with {start[:4].hex() or 'nothing'}, want {b'ftrt'.hex()} (TensorRT) or "
            f"{b'vtrt'.hex()} (TensorRT-RTX)"
        )
    if size < HEADER_BYTES or len(start) < HEADER_BYTES:
        raise errors.InvalidArgument(f"is cut off: got {size} bytes, want more than {HEADER_BYTES}")
    serialization, said_bytes = struct.unpack_from("<4xI8xQ", start)
    if serialization != 0:
        return PlanHeader(library, "")
    if library == RTX and said_bytes != size:
        what = "is cut off" if size < said_bytes else "has more at its end than belongs to it"
        raise errors.InvalidArgument(f"{what}: got {size} bytes, want {said_bytes}")
    return PlanHeader(library, ".".join(str(byte) for byte in start[24:28]))
