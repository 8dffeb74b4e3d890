"""Programs from start to end: exit with requests in flight, signals, fork, the collector. Each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

Program = Callable[..., Any]

# --- the end of the interpreter


@pytest.mark.parametrize(
    "text",
    [
        "engine.infer('echo', x)",
        "engine.submit('echo', x).result()",
        "engine.submit('echo', x)",
        "futures = [engine.submit('echo', x) for _ in range(100)]",
        "next(engine.map('echo', [x] * 100))",
        "answers = engine.map('echo', [x] * 100); next(answers)",
        "import asyncio; asyncio.run(engine.infer_async('echo', x))",
        "import asyncio; loop = asyncio.new_event_loop(); loop.run_until_complete(engine.infer_async('echo', x))",
        "engine.register_backend('py', lambda b: {'y': b.inputs['x']}, inputs=[Tensor('x', 'FP32', (-1, 4))],"
        " outputs=[Tensor('y', 'FP32', (-1, 4))], max_batch_rows=4); engine.load('p', backend='py');"
        " engine.infer('p', x); futures = [engine.submit('p', x) for _ in range(50)]",
        "sys.modules['keeps'] = engine",
        "engine.close()",
    ],
)
def test_an_unclosed_engine_does_not_hold_up_the_exit(program: Program, text: str) -> None:
    started = program(f"{text}\nprint('end')")
    assert started.end() == (0, "end", "")


def test_what_waits_is_cancelled_at_exit(program: Program) -> None:
    """20 s of work are queued: the exit waits for the one that runs."""
    started = program(
        """
        load_echo(engine, "slow", 1_000_000)
        engine.load("one", backend="identity", max_batch_rows=1, inputs=[Tensor("x", "FP32", (-1, 4))],
                    outputs=[Tensor("y", "FP32", (-1, 4))], parameters={"execute_delay_us": "1000000"})
        futures = [engine.submit("one", x) for _ in range(20)]
        done = []
        futures[-1].add_done_callback(lambda f: print(type(f.exception()).__name__, flush=True))
        print("end", flush=True)
        """
    )
    assert started.line() == "end"
    began = time.monotonic()
    code, out, err = started.end()
    assert (code, out, err) == (0, "Cancelled", "")
    assert time.monotonic() - began < 8


def test_every_future_that_waits_is_told_before_the_interpreter_ends(program: Program) -> None:
    """Also where callbacks submit more, which is refused."""
    started = program(
        """
        import atexit
        from fastserve.embedding import owners
        load_echo(engine, "slow", 300_000)
        told, refused = [], []
        def tell(future):
            told.append(future)
            try: engine.submit("slow", x)
            except fastserve.Unavailable as error: refused.append(str(error))
        futures = [engine.submit("slow", x) for _ in range(50)]
        for future in futures: future.add_done_callback(tell)
        def last():
            ends = {type(f.exception()).__name__ for f in futures}
            print(len(told), ends - {"NoneType"}, set(refused))
        atexit.unregister(owners._at_exit)
        atexit.register(last)
        atexit.register(owners._at_exit)  # runs before `last`
        """
    )
    assert started.end() == (0, "50 {'Cancelled'} {'the engine is closed'}", "")


@pytest.mark.parametrize("kind", ["infer", "result", "map", "loop", "load"])
def test_daemon_threads_inside_the_engine_at_exit(program: Program, kind: str) -> None:
    started = program(
        f"""
        import asyncio
        load_echo(engine, "slow", 300_000)

        async def on_loop():
            while True:
                await asyncio.gather(*(engine.infer_async("slow", x) for _ in range(4)))

        def infer():
            while True: engine.infer("slow", x)
        def result():
            while True: engine.submit("slow", x).result()
        def map():
            while True: list(engine.map("slow", [x] * 8))
        def load():
            while True: load_echo(engine, "other", 20_000)
        def loop():
            asyncio.run(on_loop())

        def quiet():
            try: {kind}()
            except fastserve.FastserveError: pass

        threads = [threading.Thread(target=quiet, daemon=True) for _ in range(4 if {kind!r} != "load" else 1)]
        for thread in threads: thread.start()
        time.sleep(0.3)
        print("end")
        """
    )
    code, out, err = started.end()
    assert (code, out) == (0, "end"), err
    assert "Fatal" not in err
    assert "terminate" not in err


def test_daemon_threads_that_come_back_all_the_time(program: Program) -> None:
    """Thousands of short calls a second, some of which are coming back at any moment."""
    for _ in range(3):
        started = program(
            """
            def calls():
                try:
                    while True: engine.infer("echo", x)
                except fastserve.FastserveError: pass
            for _ in range(4): threading.Thread(target=calls, daemon=True).start()
            time.sleep(0.2)
            print("end")
            """
        )
        code, out, err = started.end()
        assert (code, out, err) == (0, "end", "")


def test_after_the_exit_began_engines_say_so(program: Program) -> None:
    """A handler that was registered before fastserve was imported runs after fastserve's."""
    text = """
import atexit
atexit.register(lambda: late())
import fastserve
engine = fastserve.Engine()
def late():
    for call in (engine.models, fastserve.Engine):
        try: call()
        except fastserve.Unavailable as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["the engine is closed", "the interpreter is ending"]


# --- the collector


def test_a_dropped_engine_is_closed(program: Program) -> None:
    started = program(
        """
        import warnings, weakref
        warnings.simplefilter("always")
        future = engine.submit("echo", x)
        threads = threading.active_count()
        gone = weakref.ref(engine)
        del engine
        gc.collect()
        print(gone() is None, future.result(5)["y"].shape, threads - threading.active_count())
        """
    )
    code, out, err = started.end()
    assert (code, out) == (0, "True (1, 4) 1")
    assert "ResourceWarning: an Engine was dropped without close()" in err


@pytest.mark.parametrize("what", ["map", "loop", "backend"])
def test_a_dropped_engine_with_everything_on_it_is_closed(program: Program, what: str) -> None:
    started = program(
        f"""
        import asyncio, weakref
        if {what!r} == "map":
            answers = engine.map("echo", [x] * 100, in_flight=8); next(answers)
        elif {what!r} == "loop":
            asyncio.run(engine.infer_async("echo", x))
        else:
            tensors = dict(inputs=[Tensor("x", "FP32", (-1, 4))], outputs=[Tensor("y", "FP32", (-1, 4))], max_batch_rows=4)
            engine.register_backend("py", lambda b: {{"y": b.inputs["x"]}}, **tensors)
            engine.load("p", backend="py"); engine.infer("p", x)
        gone = weakref.ref(engine)
        del engine
        gc.collect()
        if {what!r} == "map":
            del answers
            gc.collect()
        print(gone() is None)
        """,
        "-W",
        "ignore::ResourceWarning",
    )
    assert started.end() == (0, "True", "")


# --- signals


@pytest.mark.parametrize(
    "call",
    [
        "engine.infer('slow', x)",
        "engine.submit('slow', x).result()",
        "list(engine.map('slow', [x] * 3))",
        "asyncio.run(engine.infer_async('slow', x))",
    ],
)
def test_keyboard_interrupt(program: Program, call: str) -> None:
    """The run takes 1.5 s; the interrupt comes at once, and the engine serves on."""
    started = program(
        f"""
        import asyncio
        load_echo(engine, "slow", 1_500_000)
        threading.Timer(0.3, lambda: print("in", flush=True)).start()
        began = time.monotonic()
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - began < 1.4, flush=True)
        print(engine.infer("echo", x)["y"].shape)
        """
    )
    assert started.line() == "in"
    time.sleep(0.1)
    started.interrupt()
    assert started.end() == (0, "interrupted True\n(1, 4)", "")


def test_a_handler_that_does_not_raise_interrupts_nothing(program: Program) -> None:
    started = program(
        """
        load_echo(engine, "slow", 500_000)
        signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        print(engine.infer("slow", x)["y"].shape)
        """
    )
    assert started.end() == (0, "handled\n(1, 4)", "")


# --- fork

CALLS = """
def every_call():
    import asyncio
    for call in (
        lambda: engine.infer("echo", x), lambda: engine.submit("echo", x), lambda: next(engine.map("echo", [x])),
        lambda: asyncio.run(engine.infer_async("echo", x)), lambda: load_echo(engine, "other"), lambda: engine.models(),
        lambda: engine.unload("echo"), Engine,
    ):
        try: call()
        except fastserve.FailedPrecondition as error: assert "forked from" in str(error) or "was forked" in str(error), error
        else: raise AssertionError("no error")
    engine.close()
    return "refused"
"""


def test_os_fork(program: Program) -> None:
    started = program(
        CALLS
        + """
engine.submit("echo", x).result()
load_echo(engine, "slow", 200_000)
running = engine.submit("slow", x)
pid = os.fork()
if pid == 0:
    print(every_call(), flush=True)
    sys.exit(0)
print(os.waitpid(pid, 0)[1], flush=True)
print(running.result(10)["y"].shape, engine.infer("echo", x)["y"].shape)
"""
    )
    assert started.end() == (0, "refused\n0\n(1, 4) (1, 4)", "")


def test_multiprocessing_fork(program: Program) -> None:
    started = program(
        CALLS
        + """
import multiprocessing
engine.infer("echo", x)
engine.submit("echo", x).result()
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.apply(every_call))
print(engine.infer("echo", x)["y"].shape)
"""
    )
    code, out, err = started.end()
    assert (code, out) == (0, "refused\n(1, 4)"), err


def test_a_child_that_ends_or_drops_the_engine_hangs_nowhere(program: Program) -> None:
    started = program(
        """
engine.submit("echo", x).result()
answers = engine.map("echo", [x] * 10)
next(answers)
pid = os.fork()
if pid == 0:
    del engine, answers
    gc.collect()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), len(list(answers)))
"""
    )
    assert started.end() == (0, "7 9", "")


def test_fork_before_the_first_engine_is_fine(program: Program) -> None:
    """As servers with worker processes do: import in the parent, engines in the children."""
    text = """
import os
import numpy as np
import fastserve
fastserve.Engine
pid = os.fork()
with fastserve.Engine() as engine:
    t = [fastserve.Tensor("x", "FP32", (-1, 4))], [fastserve.Tensor("y", "FP32", (-1, 4))]
    engine.load("m", backend="identity", inputs=t[0], outputs=t[1], max_batch_rows=4)
    engine.submit("m", {"x": np.ones((1, 4), np.float32)}).result()
if pid:
    print(os.waitpid(pid, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_sigint_at_exit_is_not_lost(program: Program) -> None:
    started = program("print('in', flush=True); time.sleep(30)")
    assert started.line() == "in"
    started.interrupt()
    code, _, err = started.end()
    assert code in (130, -signal.SIGINT)
    assert "KeyboardInterrupt" in err
