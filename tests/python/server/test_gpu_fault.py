"""A lost GPU: not ready at once, the exit after the grace period, or never."""

from __future__ import annotations

import asyncio

import pytest

from fastserve import _core
from fastserve.server import gpu_fault

FAULT: _core.GpuFault = {
    "device": 0,
    "uuid": "GPU-1",
    "reason": "GPU 0 is lost",
    "batch": "model 'm'",
    "at_ns": 1,
}


class Exited(Exception):
    pass


def exit_now(code: int) -> None:
    raise Exited(code)


async def watch(grace_s: float, looks_before: int, ready: list[bool]) -> None:
    left = looks_before

    def faults() -> list[_core.GpuFault]:
        nonlocal left
        left -= 1
        return [FAULT] if left < 0 else []

    await gpu_fault.watch(lambda: ready.append(False), exit_now, grace_s=grace_s, faults=faults, look_s=0.001)


@pytest.mark.parametrize("grace_s", [0.0, 0.02])
def test_the_process_ends_with_its_code_after_the_grace_period(
    grace_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    ready: list[bool] = []

    async def run() -> float:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Exited, match="70"):
            await watch(grace_s, 3, ready)
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(run()) >= grace_s
    assert bool(ready) == (grace_s > 0)
    assert [r.message for r in caplog.records] == [
        f"GPU 0 is lost: not ready; ending with exit code 70 in {grace_s:g} s"
    ]


def test_a_server_that_is_to_stay_stays_unready(caplog: pytest.LogCaptureFixture) -> None:
    ready: list[bool] = []

    async def run() -> None:
        await asyncio.wait_for(watch(gpu_fault.STAY, 0, ready), 0.05)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert len(ready) > 1  # again and again: the first load may end meanwhile
    assert len(caplog.records) == 1
