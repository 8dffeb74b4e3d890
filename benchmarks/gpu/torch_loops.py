"""Loops that torch_rows.py times: a CUDA graph of torch's own with nothing around it, and requests to an engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import torch
from torch_models import DEVICE, images

from fastserve import Engine


def timed(call: Callable[[], Any], times: int) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


class BareLane:
    """A CUDA graph of torch's own, with its copies: what a loop without a server would do."""

    def __init__(self, module: torch.nn.Module, rows: int) -> None:
        self.stream = torch.cuda.Stream()
        self.host_in = torch.from_numpy(images(rows)).pin_memory()
        with torch.cuda.stream(self.stream), torch.inference_mode():
            self.device_in = self.host_in.to(DEVICE)
            for _ in range(3):
                module(self.device_in)
            self.stream.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.device_out = module(self.device_in)
            self.host_out = torch.empty(self.device_out.shape, dtype=self.device_out.dtype).pin_memory()
        self.done = torch.cuda.Event()

    def start(self) -> None:
        with torch.cuda.stream(self.stream):
            self.device_in.copy_(self.host_in, non_blocking=True)
            self.graph.replay()
            self.host_out.copy_(self.device_out, non_blocking=True)
            self.done.record()

    def wait(self) -> None:
        while not self.done.query():
            pass


def bare_batches_per_second(module: torch.nn.Module, rows: int, lanes: int, times: int) -> float:
    made = [BareLane(module, rows) for _ in range(lanes)]
    for lane in made:
        lane.start()
    start = time.perf_counter()
    for i in range(times):
        made[i % lanes].wait()
        made[i % lanes].start()
    took = time.perf_counter() - start
    torch.cuda.synchronize()
    return times / took


async def answers_per_second(
    engine: Engine, batches: list[Any], in_flight: int, times: int
) -> tuple[float, list[float]]:
    """(answers a second, latencies in ms) with so many requests under way."""
    latencies: list[float] = []
    left = times + in_flight

    async def client(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            await engine.infer_async("m", {"x": batches[number % len(batches)]})
            latencies.append((time.perf_counter() - start) * 1e3)

    await client_warm(engine, batches)
    start = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(in_flight)))
    return (times + in_flight) / (time.perf_counter() - start), latencies


async def client_warm(engine: Engine, batches: list[Any]) -> None:
    for batch in batches[:4]:
        await engine.infer_async("m", {"x": batch})
