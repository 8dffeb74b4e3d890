"""The simulated CUDA driver between processes, and its settings in the environment.

The rest of it: tests/csrc/backend/cuda_simulated_test.cc."""

from __future__ import annotations

import subprocess
import sys

from tests.support import simulated_cuda

PRELUDE = """
import ctypes as c, sys
cuda = c.CDLL("libcuda.so.1")
u64, size = c.c_uint64, c.c_size_t

def entry(name, version=12000):
    address = c.c_void_p()
    assert cuda.cuGetProcAddress_v2(name.encode(), c.byref(address), version, u64(0), None) == 0, name
    return c.CFUNCTYPE(c.c_int)(address.value)

context = c.c_void_p()
assert entry("cuInit")(0) == 0
assert entry("cuDevicePrimaryCtxRetain")(c.byref(context), 0) == 0
assert entry("cuCtxSetCurrent")(context) == 0
handle = (c.c_ubyte * 64)()
"""

EXPORTER = """
address = u64()
assert cuda.cuMemAlloc_v2(c.byref(address), size(100)) == 0
assert cuda.cuMemcpyHtoD_v2(address, b"shared between processes", size(24)) == 0
assert cuda.cuIpcGetMemHandle(handle, address) == 0
class Handle(c.Structure):
    _fields_ = [("bytes", c.c_ubyte * 64)]
opened = u64()
print(cuda.cuIpcOpenMemHandle_v2(c.byref(opened), Handle(handle), 1))
print(bytes(handle).hex(), flush=True)
sys.stdin.read()
"""

IMPORTER = """
class Handle(c.Structure):
    _fields_ = [("bytes", c.c_ubyte * 64)]
given = Handle((c.c_ubyte * 64)(*bytes.fromhex(sys.argv[1])))
first, second, length = u64(), u64(), size()
refused = cuda.cuIpcOpenMemHandle_v2(c.byref(first), given, 1)
if refused:
    sys.exit(f"refused with {refused}")
assert cuda.cuIpcOpenMemHandle_v2(c.byref(second), given, 1) == 0
assert first.value == second.value
assert cuda.cuPointerGetAttribute(c.byref(length), 12, first) == 0  # RANGE_SIZE
text = c.create_string_buffer(24)
assert cuda.cuMemcpyDtoH_v2(text, first, size(24)) == 0
print(length.value, text.raw.decode())
assert cuda.cuIpcCloseMemHandle(first) == 0
assert cuda.cuIpcCloseMemHandle(first) == 0
print(cuda.cuIpcCloseMemHandle(first))
"""


def program(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", PRELUDE + code, *words]


def test_memory_is_shared_through_a_handle() -> None:
    environment = simulated_cuda.environment()
    exporter = subprocess.Popen(
        program(EXPORTER), env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert exporter.stdout is not None
        assert exporter.stdout.readline() == "201\n", (
            "CUDA_ERROR_INVALID_CONTEXT in the process that exported it"
        )
        handle = exporter.stdout.readline().strip()
        done = subprocess.run(
            program(IMPORTER, handle), env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["100 shared between processes", "1"]
    finally:
        exporter.communicate("", timeout=60)


def test_a_handle_of_a_process_that_is_gone_is_refused() -> None:
    environment = simulated_cuda.environment()
    exported = subprocess.run(
        program(EXPORTER), env=environment, capture_output=True, text=True, input="", timeout=60, check=True
    )
    handle = exported.stdout.splitlines()[1]
    done = subprocess.run(
        program(IMPORTER, handle), env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "refused with 1\n"), "CUDA_ERROR_INVALID_VALUE"


def test_faults_and_settings_come_from_the_environment() -> None:
    code = """
address = u64()
print([cuda.cuMemAlloc_v2(c.byref(address), size(1 << 20)) for _ in range(4)])
"""
    environment = simulated_cuda.environment(memory_mb=2, faults="cuMemAlloc:2:700")
    done = subprocess.run(
        program(code), env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[0, 700, 700, 700]\n"
    environment = simulated_cuda.environment(memory_mb=2)
    done = subprocess.run(
        program(code), env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[0, 0, 2, 2]\n"
