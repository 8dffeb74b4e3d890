"""A client's process with GPU memory, on the simulated CUDA driver: allocates, exports a handle, shows what others wrote there.

    with Exporter(folder of libcuda.so.1, bytes) as exporter:
        exporter.handle; exporter.write(b"..."); exporter.read(16)

Run as a program it is that process: commands by stdin, answers by stdout, hexadecimal.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
HANDLE_BYTES = 64


def simulated_driver() -> Path | None:
    """The folder of the simulated libcuda.so.1 that was built last; FASTSERVE_SIMULATED_CUDA names another one."""
    given = os.environ.get("FASTSERVE_SIMULATED_CUDA")
    if given:
        return Path(given)
    built = sorted(ROOT.glob("build/*/simulated_cuda/libcuda.so.1"), key=lambda path: path.stat().st_mtime)
    return built[-1].parent if built else None


class Exporter:
    """A context manager: the process ends with it."""

    def __init__(self, driver: Path, byte_size: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(byte_size)],
            env={**os.environ, "LD_LIBRARY_PATH": str(driver)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.handle = bytes.fromhex(self._ask("handle"))

    def write(self, data: bytes) -> None:
        self._ask(f"write {data.hex()}")

    def read(self, byte_size: int) -> bytes:
        return bytes.fromhex(self._ask(f"read {byte_size}"))

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()


def _serve(byte_size: int) -> None:
    cu: Any = ctypes.CDLL("libcuda.so.1")
    context, memory = ctypes.c_void_p(), ctypes.c_uint64()
    handle = ctypes.create_string_buffer(HANDLE_BYTES)
    _check(cu.cuInit(0))
    _check(cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    _check(cu.cuCtxSetCurrent(context))
    _check(cu.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(byte_size)))
    _check(cu.cuIpcGetMemHandle(handle, memory))
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        answer = b""
        if command == "handle":
            answer = handle.raw
        elif command == "write":
            data = bytes.fromhex(argument)
            _check(cu.cuMemcpyHtoD_v2(memory, data, ctypes.c_size_t(len(data))))
        else:
            out = ctypes.create_string_buffer(int(argument))
            _check(cu.cuMemcpyDtoH_v2(out, memory, ctypes.c_size_t(len(out))))
            answer = out.raw
        print(answer.hex(), flush=True)


def _check(result: int) -> None:
    if result != 0:
        raise RuntimeError(f"the simulated CUDA driver: {result}")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
