"""`fastserve devices` on the simulated CUDA driver and without one. Nothing here has seen a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tests.support import simulated_cuda

from fastserve import _core

pytestmark = pytest.mark.skipif(not _core.has_gpu_lane, reason="built without the GPU lane")


def devices(environment: dict[str, str], *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fastserve.cli", "devices", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def no_driver() -> dict[str, str]:
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("this machine has a driver")
    return dict(os.environ)


def test_devices_are_listed() -> None:
    code, text = devices(simulated_cuda.environment(devices=2, memory_mb=80 << 10))
    assert code == 0
    assert text.splitlines() == [
        f"{n}  Simulated GPU  GPU-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae0{n}  80 GiB  compute capability 9.0  F00D:0{n}:00.0"
        for n in (0, 1)
    ]


def test_devices_for_programs() -> None:
    code, text = devices(simulated_cuda.environment(mig=1), "--json")
    assert code == 0
    assert json.loads(text) == {
        "devices": [
            {
                "ordinal": 0,
                "name": "Simulated GPU MIG 1g.18gb",
                "uuid": "MIG-a0a1a2a3-a4a5-a6a7-a8a9-aaabacadae00",
                "compute_capability": "9.0",
                "memory_bytes": 1 << 30,
                "pci": "F00D:00:00.0",
                "numa_node": None,
            }
        ],
        "reason": "",
    }


def test_no_driver_is_a_clean_answer(no_driver: dict[str, str]) -> None:
    code, text = devices(no_driver)
    assert code == 1
    assert text == (
        "no GPU can be used: no NVIDIA driver: libcuda.so.1: cannot open shared object file: "
        "No such file or directory\n"
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"devices": 0}, "no GPU: the NVIDIA driver (libcuda.so.1) finds no device"),
        (
            {"missing": "cuGraphLaunch"},
            "the NVIDIA driver is too old: libcuda.so.1 (CUDA 13.0) has no cuGraphLaunch; wanted is CUDA 12.0 "
            "or newer (driver 525)",
        ),
        (
            {"version": 11040},
            "the NVIDIA driver is too old: libcuda.so.1 (CUDA 11.4) has no cuGetErrorName; wanted is CUDA 12.0 "
            "or newer (driver 525)",
        ),
        (
            {"init_result": 803},
            "the NVIDIA driver (libcuda.so.1) does not start: error (simulated) (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
        ),
    ],
)
def test_drivers_that_are_of_no_use(settings: dict[str, str | int], reason: str) -> None:
    assert devices(simulated_cuda.environment(**settings)) == (1, f"no GPU can be used: {reason}\n")


def test_hidden_devices_are_not_there() -> None:
    code, text = devices({**simulated_cuda.environment(), "CUDA_VISIBLE_DEVICES": ""}, "--json")
    assert code == 1
    assert json.loads(text)["devices"] == []
