"""map and map_async: order, bounds, errors at their place, early ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import numpy as np
import pytest

from fastserve import Engine, InvalidArgument, Unavailable

Load = Callable[..., None]


def row(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 4), value, np.float32)}


class Source:
    """Numbered rows; `taken` says how many were asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.taken = count, 0

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for i in range(self.count):
            self.taken += 1
            yield row(i)

    async def __aiter__(self) -> AsyncIterator[dict[str, np.ndarray]]:
        for one in self:
            await asyncio.sleep(0)
            yield one


def test_in_order_and_bounded(engine: Engine) -> None:
    source = Source(100)
    got = []
    for answer in engine.map("echo", source, in_flight=7):
        got.append(answer["y"][0, 0])
        assert source.taken <= len(got) + 7
    assert got == list(range(100))


def test_requests_are_out_together(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 20_000, max_batch_rows=16)
    assert len(list(engine.map("slow", Source(48), in_flight=16))) == 48
    assert engine.core.statistics("slow", 1).execution_count < 24


def test_nothing_happens_before_the_first_is_asked_for(engine: Engine) -> None:
    source = Source(3)
    answers = engine.map("echo", source)
    assert source.taken == 0
    answers.close()
    assert list(engine.map("echo", [])) == []


@pytest.mark.parametrize("bad", [0, -1])
def test_in_flight_is_checked(engine: Engine, bad: int) -> None:
    with pytest.raises(InvalidArgument, match=f"in_flight: got {bad}, want 1 or more"):
        engine.map("echo", [], in_flight=bad)
    with pytest.raises(InvalidArgument, match="in_flight"):
        engine.map_async("echo", [], in_flight=bad)
    assert len(list(engine.map("echo", Source(2), in_flight=1))) == 2


def wrong_third() -> Iterator[dict[str, np.ndarray]]:
    yield row(0)
    yield row(1)
    yield {"x": np.zeros((1, 5), np.float32)}
    yield row(3)


def broken_third() -> Iterator[dict[str, np.ndarray]]:
    yield row(0)
    yield row(1)
    raise LookupError("no more files")


@pytest.mark.parametrize(("source", "error"), [(wrong_third, InvalidArgument), (broken_third, LookupError)])
def test_errors_are_raised_at_their_place(
    engine: Engine, source: Callable[[], Iterator[object]], error: type
) -> None:
    answers = engine.map("echo", source(), in_flight=4)  # type: ignore[arg-type]
    assert [next(answers)["y"][0, 0], next(answers)["y"][0, 0]] == [0, 1]
    with pytest.raises(error):
        next(answers)
    with pytest.raises(StopIteration):
        next(answers)


@pytest.mark.parametrize(("source", "error"), [(wrong_third, InvalidArgument), (broken_third, LookupError)])
async def test_errors_are_raised_at_their_place_async(
    engine: Engine, source: Callable[[], Iterator[object]], error: type
) -> None:
    got: list[float] = []

    async def walk() -> None:
        async for answer in engine.map_async("echo", source(), in_flight=4):  # type: ignore[arg-type]
            got.append(answer["y"][0, 0])

    with pytest.raises(error):
        await walk()
    assert got == [0, 1]


def test_an_early_end_cancels_the_rest(
    engine: Engine, load_echo: Load, eventually: Callable[..., None]
) -> None:
    load_echo(engine, "slow", 50_000, max_batch_rows=1)
    for _ in engine.map("slow", Source(20), in_flight=10):
        break
    eventually(lambda: engine.core.statistics("slow", 1).in_flight == 0, 2.0)
    statistics = engine.core.statistics("slow", 1)
    assert statistics.execution_count <= 3
    assert statistics.cancel.count >= 7


def test_closing_the_engine_meanwhile(engine: Engine) -> None:
    answers = engine.map("echo", Source(100), in_flight=4)
    next(answers)
    engine.close()
    with pytest.raises(Unavailable, match="the engine is closed"):
        list(answers)


@pytest.mark.parametrize("as_async", [False, True])
async def test_map_async(engine: Engine, as_async: bool) -> None:
    source = Source(50)
    inputs: object = aiter(source) if as_async else iter(source)
    got = []
    async for answer in engine.map_async("echo", inputs, in_flight=5):  # type: ignore[arg-type]
        got.append(answer["y"][0, 0])
        assert source.taken <= len(got) + 6
    assert got == list(range(50))


async def test_a_slow_source_holds_nothing_up(engine: Engine) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[dict[str, np.ndarray]]:
        yield row(0)
        yield row(1)
        await gate.wait()
        yield row(2)

    answers = engine.map_async("echo", slow(), in_flight=8)
    assert (await asyncio.wait_for(anext(answers), 5))["y"][0, 0] == 0
    assert (await asyncio.wait_for(anext(answers), 5))["y"][0, 0] == 1
    gate.set()
    assert (await asyncio.wait_for(anext(answers), 5))["y"][0, 0] == 2
    with pytest.raises(StopAsyncIteration):
        await anext(answers)


async def test_an_early_end_cancels_the_rest_async(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 50_000, max_batch_rows=1)
    async with contextlib.aclosing(engine.map_async("slow", Source(20), in_flight=10)) as answers:
        async for _ in answers:
            break
    for _ in range(1000):
        if engine.core.statistics("slow", 1).in_flight == 0:
            break
        await asyncio.sleep(0.002)
    assert engine.core.statistics("slow", 1).execution_count <= 3
