"""Loads run at a low priority: what they cost in CPU time, thread by thread, by nice value."""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tritonclient.http as http
from running_server import RunningServer
from wide_model import write_wide

LOW = 10  # so much lower than the server's
LAYERS = 24
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def threads(pid: int) -> dict[int, tuple[int, int, str]]:
    """thread -> (nice, CPU ticks, name). proc(5)"""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            head, _, rest = Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(")")
        except OSError:  # it has ended
            continue
        fields = rest.split()
        found[int(task)] = int(fields[16]), int(fields[11]) + int(fields[12]), head.partition("(")[2]
    return found


class Watch:
    """CPU ticks by nice value, as long as it is entered; and the lowest priority of each thread."""

    def __init__(self, pid: int) -> None:
        self.ticks: Counter[int] = Counter()
        self.lowest: dict[int, int] = {}
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        before = {task: ticks for task, (_, ticks, _) in threads(self._pid).items()}
        while not self._stop.wait(0.003):
            for task, (nice, ticks, _) in threads(self._pid).items():
                self.ticks[nice] += ticks - before.get(task, 0)
                self.lowest[task] = max(nice, self.lowest.get(task, nice))
                before[task] = ticks


def load(server: RunningServer, model: str) -> Watch:
    with Watch(server.process.pid) as watch:
        http.InferenceServerClient(server.http, network_timeout=60).load_model(model)
    return watch


@pytest.fixture
def server(start: Any, tmp_path: Path) -> RunningServer:
    (tmp_path / "models").mkdir()
    made: RunningServer = start(tmp_path / "models", "--model-control-mode", "explicit", "--load-model", "*")
    for name in "abc":
        write_wide(tmp_path / "models", name, LAYERS)
    return made


def test_loads_are_low_from_the_first_on(server: RunningServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("nothing is lowered that could not be restored")
    low = min(os.getpriority(os.PRIO_PROCESS, server.process.pid) + LOW, 19)
    first, second = load(server, "a"), load(server, "b")
    for watch in (first, second):
        assert low in watch.lowest.values(), watch.lowest
        assert sum(watch.ticks.values()) * TICK_S >= 0.1, "too quick to be told"
    # Everything is born in the first load; OpenVINO's threads are used again by later ones, as they are.
    shares = [watch.ticks[low] / sum(watch.ticks.values()) for watch in (first, second)]
    assert shares[0] >= 0.8, first.ticks
    assert shares[1] >= 0.3, second.ticks


def test_no_thread_stays_low(server: RunningServer) -> None:
    base = os.getpriority(os.PRIO_PROCESS, server.process.pid)
    loads = [threading.Thread(target=load, args=(server, name)) for name in "abc"]
    for thread in loads:
        thread.start()
    for thread in loads:
        thread.join()
    assert {nice for nice, _, _ in threads(server.process.pid).values()} == {base}
