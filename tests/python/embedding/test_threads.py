"""Many threads, many engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from fastserve import Engine, FastserveError, Unavailable

X = {"x": np.ones((1, 4), np.float32)}
Load = Callable[..., None]


def together(count: int, work: Callable[[int], None]) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


def test_every_thread_gets_its_own_answer(engine: Engine) -> None:
    def work(number: int) -> None:
        for i in range(300):
            value = np.float32(number * 1000 + i)
            assert engine.infer("echo", {"x": np.full((1, 4), value)})["y"][0, 3] == value

    together(8, work)


def test_many_engines(load_echo: Load) -> None:
    engines = [Engine() for _ in range(8)]
    for number, engine in enumerate(engines):
        load_echo(engine, f"model{number}")

    def work(number: int) -> None:
        for _ in range(100):
            engines[number].infer(f"model{number}", X)
            engines[number].submit(f"model{number}", X).result(10)
        with pytest.raises(FastserveError):
            engines[number].infer(f"model{number ^ 1}", X)
        engines[number].close()

    together(8, work)


def test_threads_wait_side_by_side(engine: Engine, load_echo: Load) -> None:
    """Eight blocking calls of 100 ms on eight instances take 100 ms, not 800: the lock is let go."""
    load_echo(engine, "slow", 100_000, max_batch_rows=1, instances=8)
    began = time.monotonic()
    together(8, lambda _: engine.infer("slow", X))  # type: ignore[arg-type, return-value]
    assert time.monotonic() - began < 0.6


def test_python_runs_beside_a_call(engine: Engine, load_echo: Load) -> None:
    load_echo(engine, "slow", 300_000)
    turns = 0
    done = threading.Event()

    def count() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    engine.infer("slow", X)
    done.set()
    counter.join()
    assert turns > 50


@pytest.mark.parametrize("call", ["infer", "submit", "map"])
def test_closing_while_others_call(load_echo: Load, call: str) -> None:
    for _ in range(5):
        engine = Engine()
        load_echo(engine)

        def calls(engine: Engine = engine) -> None:
            while True:
                if call == "infer":
                    engine.infer("echo", X)
                elif call == "submit":
                    engine.submit("echo", X).result(10)
                else:
                    list(engine.map("echo", [X] * 10))

        def work(_: int, calls: Callable[[], None] = calls) -> None:
            with pytest.raises(Unavailable):
                calls()

        closer = threading.Timer(0.05, engine.close)
        closer.start()
        together(4, work)
        closer.join()


def test_use_after_close(engine: Engine, load_echo: Load) -> None:
    engine.close()
    engine.close()
    for use in (
        lambda: engine.infer("echo", X),
        lambda: engine.submit("echo", X),
        lambda: list(engine.map("echo", [X])),
        lambda: load_echo(engine),
        lambda: engine.unload("echo"),
        engine.models,
        lambda: engine.model("echo"),
        lambda: engine.register_backend("b", lambda batch: {}),
    ):
        with pytest.raises(Unavailable, match="the engine is closed"):
            use()
