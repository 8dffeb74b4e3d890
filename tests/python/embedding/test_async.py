"""infer_async: bursts, cancellation, several loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest
import uvloop

from fastserve import Engine, NotFound, Unavailable

X = {"x": np.ones((1, 4), np.float32)}
Load = Callable[..., None]


async def test_many_completions_wake_the_loop_once(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 100_000, max_batch_rows=32)
    port = engine._port(asyncio.get_running_loop())
    wakes = 0

    def resolve() -> None:
        nonlocal wakes
        wakes += 1
        port._port.resolve()

    asyncio.get_running_loop().add_reader(port._port.fd, resolve)
    # The first runs by itself, the others meanwhile become one batch.
    answers = await asyncio.gather(*(engine.infer_async("slow", {"x": X["x"] * i}) for i in range(33)))
    assert [answer["y"][0, 0] for answer in answers] == list(range(33))
    assert wakes <= 4, "one for each batch"


async def test_errors_come_at_the_await(engine: Engine) -> None:
    good, bad = await asyncio.gather(
        engine.infer_async("echo", X), engine.infer_async("nobody", X), return_exceptions=True
    )
    assert isinstance(bad, NotFound)
    assert not isinstance(good, BaseException)


async def test_cancelling_the_task_frees_the_place(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 1_000_000, max_batch_rows=1, max_queue_requests=1)

    async def waits(count: int) -> None:
        async with asyncio.timeout(10):
            while engine.core.statistics("slow", 1).pending != count:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    running = asyncio.create_task(engine.infer_async("slow", X))
    await asyncio.sleep(0.05)
    await waits(0)  # it runs
    waiting = asyncio.create_task(engine.infer_async("slow", X))
    await asyncio.sleep(0)
    await waits(1)
    with pytest.raises(Unavailable, match="maximum queue size"):
        await engine.infer_async("slow", X)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await waits(0)
    assert not running.done()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await engine.infer_async("slow", X)
    assert (await running)["y"].shape == (1, 4)
    assert engine.core.statistics("slow", 1).cancel.count == 2


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_loop_after_the_other(engine: Engine, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    for _ in range(3):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            assert runner.run(engine.infer_async("echo", X))["y"].shape == (1, 4)


def test_loops_of_several_threads(engine: Engine) -> None:
    async def calls(number: int) -> None:
        for i in range(30):
            value = np.float32(100 * number + i)
            answers = await asyncio.gather(
                *(engine.infer_async("echo", {"x": np.full((1, 4), value + k / 8)}) for k in range(4))
            )
            assert [a["y"][0, 0] for a in answers] == [value + k / 8 for k in range(4)]

    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            asyncio.run(calls(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_close_on_the_loop_answers_what_is_out(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 50_000)
    tasks = [asyncio.create_task(engine.infer_async("slow", X)) for _ in range(3)]
    await asyncio.sleep(0.01)
    engine.close()
    answers = await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert len(answers) == 3
    with pytest.raises(Unavailable, match="the engine is closed"):
        await engine.infer_async("echo", X)


async def test_close_on_another_thread_answers_what_is_out(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 50_000)
    tasks = [asyncio.create_task(engine.infer_async("slow", X)) for _ in range(3)]
    await asyncio.sleep(0.01)
    await asyncio.to_thread(engine.close)
    assert len(await asyncio.wait_for(asyncio.gather(*tasks), 5)) == 3


def test_a_loop_that_is_gone_costs_nothing(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 100_000)

    async def begin() -> None:
        engine.infer_async("slow", X).send(None)

    with asyncio.Runner() as runner:
        runner.run(begin())
    assert engine.infer("echo", X)["y"].shape == (1, 4)
    engine.close()
