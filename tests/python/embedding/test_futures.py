"""submit: futures of concurrent.futures' kind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable

import numpy as np
import pytest

from fastserve import Cancelled, DeadlineExceeded, Engine, InvalidArgument, NotFound, Unavailable

X = {"x": np.ones((1, 4), np.float32)}
Load = Callable[..., None]


def test_results_and_errors(engine: Engine) -> None:
    future = engine.submit("echo", X)
    assert isinstance(future, concurrent.futures.Future)
    np.testing.assert_array_equal(future.result(5)["y"], X["x"])
    assert future.done()
    assert not future.cancel()
    with pytest.raises(NotFound):
        engine.submit("nobody", X)
    with pytest.raises(InvalidArgument):
        engine.submit("echo", {"x": [1]})


def test_many_threads_and_one_completing_thread(engine: Engine) -> None:
    def caller(number: int) -> None:
        for i in range(50):
            value = np.float32(number * 1000 + i)
            assert engine.submit("echo", {"x": np.full((1, 4), value)}).result(10)["y"][0, 0] == value

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(caller, number) for number in range(8)]:
            done.result()
        names = [t.name for t in threading.enumerate()]
        assert names.count("fastserve-futures") == 1


def test_cancel_frees_the_place_in_the_queue(
    engine: Engine, load_echo: Load, eventually: Callable[..., None]
) -> None:
    load_echo(engine, "slow", 300_000, max_batch_rows=1, max_queue_requests=1)
    running = engine.submit("slow", X)
    eventually(lambda: engine.core.statistics("slow", 1).pending == 0)
    waiting = engine.submit("slow", X)
    with pytest.raises(Unavailable, match="maximum queue size"):
        engine.submit("slow", X)
    assert waiting.cancel()
    assert waiting.cancel()
    assert waiting.cancelled()
    eventually(lambda: engine.core.statistics("slow", 1).pending == 0)
    assert not running.done(), "the place was free before the running request was done"
    next_one = engine.submit("slow", X)
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result()
    assert running.result(10)
    assert next_one.result(10)
    assert engine.core.statistics("slow", 1).cancel.count == 1


def test_cancel_while_it_runs_throws_the_answer_away(
    engine: Engine, load_echo: Load, eventually: Callable[..., None]
) -> None:
    load_echo(engine, "slow", 100_000)
    running = engine.submit("slow", X)
    eventually(lambda: engine.core.statistics("slow", 1).pending == 0)
    assert running.cancel()
    assert concurrent.futures.wait([running], 10).done == {running}
    eventually(lambda: engine.core.statistics("slow", 1).in_flight == 0)
    assert engine.submit("slow", X).result(10)


def test_callbacks_and_waits(engine: Engine) -> None:
    called: list[str] = []
    future = engine.submit("echo", X)
    future.add_done_callback(lambda _: called.append(threading.current_thread().name))
    futures = [engine.submit("echo", X) for _ in range(5)]
    assert len(list(concurrent.futures.as_completed(futures, 10))) == 5
    future.result(5)
    engine.close()  # the completing thread is through
    assert len(called) == 1


async def test_asyncio_wraps_them(engine: Engine) -> None:
    assert (await asyncio.wrap_future(engine.submit("echo", X)))["y"].shape == (1, 4)


def test_timeouts(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 200_000)
    future = engine.submit("slow", X)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    with pytest.raises((DeadlineExceeded, Unavailable)):  # refused at once, or late
        engine.submit("slow", X, timeout=0.02).result(10)
    assert future.result(10)


def test_a_callback_may_close_the_engine(engine: Engine) -> None:
    future = engine.submit("echo", X)
    closed = threading.Event()

    def close(_: object) -> None:
        engine.close()
        closed.set()

    future.add_done_callback(close)
    assert closed.wait(10)
    with pytest.raises(Unavailable, match="the engine is closed"):
        engine.submit("echo", X)


def test_close_completes_what_is_out(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 50_000, max_batch_rows=1)
    futures = [engine.submit("slow", X) for _ in range(4)]
    engine.close()
    assert [future.done() for future in futures] == [True] * 4
    assert all(future.result()["y"].shape == (1, 4) for future in futures)


def test_unload_completes_what_is_out(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 50_000, max_batch_rows=1)
    futures = [engine.submit("slow", X) for _ in range(4)]
    engine.unload("slow", drain_seconds=0)
    errors = [future.exception(5) for future in futures]
    assert all(error is None or isinstance(error, Unavailable | Cancelled) for error in errors)
    assert any(errors)
