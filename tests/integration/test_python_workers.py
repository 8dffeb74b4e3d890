"""Models in worker processes: whatever such a process does hurts the calls in flight and nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import faulty_worker as faulty
from tests.support.fault_figures import Faults
from tests.support.memory_cgroup import NotPossible, kills, limited_memory

import fastserve
from fastserve import _core, errors
from fastserve.worker import registration

BACK_WITHIN_S = 2.0
MANY = int(os.environ.get("FASTSERVE_LONG_FAULTS", "0"))  # so many faults of each kind; 200 in the long run


@pytest.fixture
def engine() -> Iterator[fastserve.Engine]:
    with fastserve.Engine() as made:
        command = [sys.executable, "-P", faulty.__file__]
        made.core.use_workers({"python": ""}, command, registration.environment())
        yield made


@pytest.fixture
def lines() -> Iterator[list[str]]:
    said: list[str] = []
    _core.set_log_sink(lambda level, text: said.append(text))
    yield said
    _core.set_log_sink(None)


def load(engine: fastserve.Engine, **parameters: Any) -> fastserve.Model:
    instances = parameters.pop("instances", 1)
    rows = parameters.get("rows")
    texts = {name: str(value) for name, value in parameters.items()}
    return engine.load(
        "m", backend="python", instances=instances, max_batch_rows=rows and int(rows), parameters=texts
    )


def ask(engine: fastserve.Engine, order: float = 0, *more: float) -> Any:
    x = np.array([order, *more], np.float32)
    return engine.infer("m", {"x": x})["y"]


def worker(engine: fastserve.Engine, index: int = 0) -> _core.WorkerReport:
    """Of model "m"."""
    return [report for report in engine.core.workers() if report.model == "m"][index]


def wait_for(what: Any, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.002)


def seconds_until_back(engine: fastserve.Engine) -> float:
    """From now to the first answer. Refusals meanwhile are UNAVAILABLE."""
    begin = time.monotonic()
    while True:
        try:
            ask(engine, 1)
            return time.monotonic() - begin
        except errors.Unavailable:
            assert time.monotonic() - begin < 30
            time.sleep(0.005)


def be_healthy(engine: fastserve.Engine) -> None:
    """What RestartPolicy calls so: the next death is answered at once."""
    ask(engine, 1)
    time.sleep(1.05)


def test_answers_are_what_the_model_says(engine: fastserve.Engine) -> None:
    described = load(engine)
    assert described.properties["colour"] == "blue"
    x = np.random.default_rng(0).random(100_000, np.float32)
    np.testing.assert_array_equal(engine.infer("m", {"x": x})["y"], x)
    assert engine.infer("m", {"x": np.empty(0, np.float32)})["y"].size == 0


def test_requests_of_a_batch_get_their_own_rows(engine: fastserve.Engine) -> None:
    load(engine, rows=8)

    def one(seed: int) -> None:
        x = np.random.default_rng(seed).random((1 + seed % 3, 5), np.float32)
        np.testing.assert_array_equal(engine.infer("m", {"x": x})["y"], x)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(400)))
    assert engine.core.statistics("m", 1).execution_count < 400


def test_answers_outgrow_their_room_and_outlive_the_worker(engine: fastserve.Engine) -> None:
    load(engine)
    small = ask(engine, 7)
    large = ask(engine, faulty.LARGE, 5)
    assert large.shape == (3_000_000,)
    engine.unload("m")
    assert (large[::2] == faulty.LARGE).all()
    assert (large[1::2] == 5).all()
    assert small[0] == 7


def test_exceptions_and_bad_answers_fail_their_batch_only(engine: fastserve.Engine, lines: list[str]) -> None:
    load(engine)
    with pytest.raises(errors.Internal, match="ValueError: this request is bad"):
        ask(engine, faulty.RAISE)
    with pytest.raises(errors.Internal, match="0 answers for 1 requests"):
        ask(engine, faulty.WRONG_COUNT)
    with pytest.raises(errors.Internal, match=r'outputs\["y"\]: got dtype float64, want FP32'):
        ask(engine, faulty.WRONG_DTYPE)
    assert ask(engine, 1)[0] == 1
    assert worker(engine).restarts == 0
    wait_for(lambda: any("Traceback" in line for line in lines))


class Canary:
    """Asks another worker of the same engine all the time: nothing that happens to its neighbour may fail it."""

    def __init__(self, engine: fastserve.Engine, faults: Faults) -> None:
        engine.load("canary", backend="python", parameters={})
        self._engine, self._faults = engine, faults
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _ask(self) -> None:
        x = {"x": np.ones(4, np.float32)}
        while not self._stop.wait(0.005):
            try:
                assert self._engine.infer("canary", x)["y"].sum() == 4
                self._faults.answered_beside += 1
            except Exception as error:
                self._faults.failed_beside.append(repr(error))


def check(faults: Faults) -> None:
    faults.write()
    assert faults.failed_beside == []
    assert faults.answered_beside > 0
    assert max(faults.back_s) < BACK_WITHIN_S


FAULTS = {
    "segfault": (faulty.SEGFAULT, "signal 11"),
    "sys.exit": (faulty.EXIT, "status 3"),
    "os._exit": (faulty.OS_EXIT, "status 4"),
    "hang": (faulty.HANG, "execute_timeout_s"),
    "out of memory": (faulty.OUT_OF_GROUP_MEMORY, "signal 9 .*memory"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_deaths_fail_what_was_in_flight_and_the_next_worker_is_there_soon(
    engine: fastserve.Engine, fault: str
) -> None:
    """Out of memory: the kernel's own kill, in a control group of little memory."""
    order, words = FAULTS[fault]
    faults = Faults(fault, BACK_WITHIN_S)
    with contextlib.ExitStack() as stack:
        group = ""
        if fault == "out of memory":
            try:
                group = str(stack.enter_context(limited_memory(64 << 20)))
            except NotPossible as reason:
                pytest.skip(f"no control group with a limit: {reason}")
        load(engine, execute_timeout_s=0.3 if fault == "hang" else 30, group=group)
        stack.enter_context(Canary(engine, faults))
        for round_ in range(max(1, MANY)):
            be_healthy(engine)
            with pytest.raises(errors.Unavailable, match=words):
                ask(engine, order)
            faults.failed_in_flight += 1
            faults.back(seconds_until_back(engine), worker(engine).pid)
            assert worker(engine).restarts == round_ + 1
        assert not group or kills(Path(group)) == len(faults.back_s)
    check(faults)


def test_kill_at_any_time(engine: fastserve.Engine) -> None:
    """Clients keep asking while the worker is killed: they see answers or UNAVAILABLE, nothing else, and nothing hangs."""
    load(engine, rows=4, instances=1)
    stop = threading.Event()
    other: list[BaseException] = []
    answered, unavailable = [0], [0]

    def client() -> None:
        x = np.ones((1, 64), np.float32)
        while not stop.is_set():
            try:
                assert (engine.infer("m", {"x": x})["y"] == x).all()
                answered[0] += 1
            except errors.Unavailable:
                unavailable[0] += 1
                time.sleep(0.001)
            except BaseException as error:
                other.append(error)
                return

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    faults = Faults("kill -9 under load", BACK_WITHIN_S)
    with Canary(engine, faults):
        for _ in range(MANY or 5):
            time.sleep(1.05 + np.random.default_rng().random() * 0.05)
            pid = worker(engine).pid
            os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            # Not before: answers of the one that was killed may still be on their way to their callers.
            wait_for(lambda pid=pid: worker(engine).pid != pid and worker(engine).state == "UP", 30)
            before = answered[0]
            wait_for(lambda before=before: answered[0] > before, 30)
            faults.back(time.monotonic() - died, worker(engine).pid)
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not other
    faults.failed_in_flight = unavailable[0]
    check(faults)


def test_out_of_memory_is_the_models_own_error(engine: fastserve.Engine) -> None:
    load(engine)
    with pytest.raises((errors.Internal, errors.Unavailable)):
        ask(engine, faulty.OUT_OF_MEMORY)
    assert seconds_until_back(engine) < BACK_WITHIN_S


def test_a_sibling_takes_over(engine: fastserve.Engine) -> None:
    load(engine, instances=2)
    ask(engine, 1)
    stopped = worker(engine, 0).pid
    for _ in range(3):  # into the back-off
        pid = worker(engine, 0).pid
        if pid > 0:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda pid=pid: worker(engine, 0).pid != pid)
        for _ in range(50):
            assert ask(engine, 1)[0] == 1
    assert stopped != worker(engine, 0).pid


def test_back_off_refuses_and_says_why(engine: fastserve.Engine, tmp_path: Path) -> None:
    load(engine, initialize="once", marker=tmp_path / "marker")
    with pytest.raises(errors.Unavailable, match="status 4"):
        ask(engine, faulty.OS_EXIT)
    wait_for(lambda: worker(engine).restarts >= 3)
    with pytest.raises(errors.Unavailable, match="started before"):
        ask(engine, 1)
    assert not engine.core.ready("m", "")
    (tmp_path / "marker").unlink()
    wait_for(lambda: worker(engine).state == "UP")
    assert engine.core.ready("m", "")
    assert ask(engine, 1)[0] == 1


@pytest.mark.parametrize(
    ("how", "words"),
    [("raise", "ValueError: no such weights"), ("exit", "nothing to do"), ("hang", "initialize_timeout_s")],
)
def test_loads_fail_with_the_reason(engine: fastserve.Engine, how: str, words: str) -> None:
    with pytest.raises((errors.InvalidArgument, errors.FailedPrecondition), match=words):
        load(engine, initialize=how, initialize_timeout_s=0.5 if how == "hang" else 60)
    assert engine.core.workers() == []


def test_logs_have_the_workers_name(engine: fastserve.Engine, lines: list[str]) -> None:
    load(engine, worker_threads=3)
    ask(engine, faulty.PRINT)
    for words in ("a line on stdout", "a line on stderr", "threads=3 spec=3"):
        wait_for(lambda words=words: f"model 'm' version 1: worker m_0_0: {words}" in lines)


def test_unload_finalizes_and_leaves_no_process(engine: fastserve.Engine, lines: list[str]) -> None:
    load(engine, instances=2)
    pids = [report.pid for report in engine.core.workers()]
    engine.unload("m")
    assert sum("finalized" in line for line in lines) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_finalize_has_a_limit(engine: fastserve.Engine) -> None:
    load(engine, finalize="hang", finalize_timeout_s=0.2)
    begin = time.monotonic()
    engine.unload("m")
    assert time.monotonic() - begin < 3


def test_calls_to_other_models(engine: fastserve.Engine) -> None:
    engine.load("other", backend="python")
    load(engine, calls="other")
    for _ in range(3):
        assert ask(engine, faulty.CALL, 5).tolist() == [faulty.CALL + 1, 6]
    engine.unload("other")  # not held by who called it
    with pytest.raises(errors.NotFound):
        ask(engine, faulty.CALL, 5)


def test_a_model_that_calls_itself_is_told_so(engine: fastserve.Engine) -> None:
    load(engine, calls="m")
    with pytest.raises(errors.FailedPrecondition, match="calls itself"):
        ask(engine, faulty.CALL)


def test_server_that_is_killed_leaves_no_worker(tmp_path: Path) -> None:
    program = (
        "import sys, time, fastserve\n"
        "from fastserve.worker import registration\n"
        "engine = fastserve.Engine()\n"
        f"engine.core.use_workers({{'python': ''}}, [sys.executable, '-P', {faulty.__file__!r}], registration.environment())\n"
        "engine.load('m', backend='python')\n"
        "print(engine.core.workers()[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    import subprocess

    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_python_models_are_off_by_default() -> None:
    with (
        fastserve.Engine() as engine,
        pytest.raises(errors.FailedPrecondition, match="--allow-python-models"),
    ):
        engine.load("m", backend="python")
