"""Owners of shared memory that truncate it, unregister it under a request, or die."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_memory import (
    KILLS,
    PAGE,
    SHM,
    SLOW_S,
    created,
    key_of,
    mapped,
    refused,
    regions,
    registered,
    shared_input,
    shared_output,
    shm,
)
from fault_figures import write_killed_clients
from running_server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


class Cut:
    """A region whose owner may truncate it; `put` works before that."""

    def __init__(self, client: Any, name: str, pages: int = 16) -> None:
        self.path = SHM / key_of(name)[1:]
        self.path.write_bytes(bytes(pages * PAGE))
        self.bytes = pages * PAGE
        client.call("register_system_shared_memory", name, key_of(name), self.bytes)

    def cut(self, size: int = 0) -> None:
        os.truncate(self.path, size)

    def close(self) -> None:
        self.path.unlink()


@pytest.fixture
def cut(either: Any) -> Iterator[Cut]:
    region = Cut(either, "cut")
    yield region
    region.close()


def cut_request(client: Any, region: Cut, place: str) -> dict[str, Any]:
    """A slow request that reads or writes all of the region."""
    count = region.bytes // 4
    if place == "output":
        own_input = client.module.InferInput("INPUT0", [count // 8], "INT32")
        own_input.set_data_from_numpy(np.ones(count // 8, np.int32))
        return {"inputs": [own_input], "outputs": [shared_output(client, "OUTPUT0", "cut", count // 2)]}
    return {
        "inputs": [shared_input(client, "INPUT0", [count], "INT32", "cut", region.bytes)],
        "outputs": [client.module.InferRequestedOutput("OUTPUT0")],
    }


WORDS = "shared memory region 'cut' was truncated by its owner"


@pytest.mark.parametrize("place", ["input", "output"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_truncated(
    either: Any, own_server: RunningServer, client_class: Any, cut: Cut, place: str, when: str
) -> None:
    request = cut_request(either, cut, place)
    other = client_class("grpc", own_server)
    failures: list[BaseException] = []
    stop = threading.Event()

    def others() -> None:
        x = np.ones((1, 4), np.int32)
        try:
            while not stop.is_set():
                other.infer("echo", {"INPUT0": ("INT32", x), "INPUT1": ("INT32", x)})
        except BaseException as error:
            failures.append(error)

    gc.collect()  # tritonclient.http wants to be collected in the thread that made it
    thread = threading.Thread(target=others)
    thread.start()
    timer = threading.Timer(0.0 if when == "before" else SLOW_S / 2, cut.cut)
    timer.start()
    if when == "before":
        timer.join()
    try:
        with refused(either, "INVALID_ARGUMENT", WORDS):
            either.call("infer", "slow", **request)
    finally:
        stop.set()
        thread.join()
        other.close()
    assert not failures
    assert set(regions(either)) == {"cut"}, "listed until it is unregistered"
    assert own_server.scrape()["fastserve_shared_memory_broken_regions"] == 1
    cut.cut(cut.bytes)  # made larger again it is still another memory
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "slow", **request)
    either.call("unregister_system_shared_memory", "cut")
    either.call("register_system_shared_memory", "cut", key_of("cut"), cut.bytes)
    either.call("infer", "slow", **request)
    assert own_server.scrape()["fastserve_shared_memory_broken_regions"] == 0


def test_truncated_under_openvino(either: Any, cut: Cut) -> None:
    """Whatever thread reads or writes it."""
    there = shared_input(either, "x", [8, 16], "FP32", "cut", 512, PAGE)
    here = either.input("x", "FP32", np.ones((8, 16), np.float32))
    answer = [shared_output(either, "y", "cut", 160, 2 * PAGE)]
    cut.cut(2 * PAGE)
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "mlp", [here], outputs=answer)
    either.call("unregister_system_shared_memory", "cut")
    either.call("register_system_shared_memory", "cut", key_of("cut"), 2 * PAGE)
    either.call("infer", "mlp", [there])
    cut.cut(0)
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "mlp", [there])


def test_unregistered_while_a_request_uses_it(own: Any, own_server: RunningServer, client_class: Any) -> None:
    values = np.arange(64, dtype=np.int32)
    other = client_class("grpc", own_server)  # may be used from another thread
    in_flight = 'fastserve_requests_in_flight{model="slow",version="1"}'
    seen: dict[str, Any] = {}

    def meanwhile() -> None:
        until = time.monotonic() + 10
        while own_server.scrape()[in_flight] == 0 and time.monotonic() < until:
            pass
        other.call("unregister_system_shared_memory", "used")
        seen["listed"] = regions(other)
        seen["mapped"] = own_server.scrape()["fastserve_shared_memory_regions"]
        other.call("register_system_shared_memory", "used", key_of("next"), 64)
        seen["listed anew"] = regions(other)
        seen["running"] = own_server.scrape()[in_flight]

    with registered(own, "used", 4096) as memory, created("next", 64):
        shm.set_shared_memory_region(memory, [values])
        thread = threading.Thread(target=meanwhile)
        thread.start()
        tensor = shared_input(own, "INPUT0", [64], "INT32", "used", 256)
        try:
            own.call("infer", "slow", [tensor], outputs=[shared_output(own, "OUTPUT0", "used", 256, 2048)])
        finally:
            thread.join()
            other.close()
        assert seen == {
            "listed": {},  # its name is gone at once
            "mapped": 1,  # its memory is not
            "listed anew": {"used": (key_of("next"), 0, 64)},
            "running": 1,
        }
        np.testing.assert_array_equal(shm.get_contents_as_numpy(memory, np.int32, [64], 2048), values)
        gc.collect()


# Forks a client for each key that it reads, and says its process: imports once. A client registers a region, then infers from it
# and into it, and cuts it off and makes it whole again while requests run.
CLIENTS = """
import importlib, os, random, signal, sys, threading, warnings
warnings.simplefilter("ignore")
protocol, address, size = sys.argv[1], sys.argv[2], 4 * 4096
module = importlib.import_module("tritonclient." + protocol)
from tritonclient.utils import InferenceServerException
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def run(key):
    path, name = "/dev/shm" + key, key[1:]
    with open(path, "wb") as f:
        f.write(bytes(size))
    client = module.InferenceServerClient(address)
    client.register_system_shared_memory(name, key, size)
    print(os.getpid(), flush=True)
    def cut():
        while True:
            os.truncate(path, random.choice([0, 4096, 5000, size]))
    threading.Thread(target=cut, daemon=True).start()
    source = module.InferInput("INPUT0", [size // 8], "INT32")
    source.set_shared_memory(name, size // 2)
    target = module.InferRequestedOutput("OUTPUT0")
    target.set_shared_memory(name, size // 2, size // 2)
    def infer():
        client.infer(random.choice(["quick", "slow"]), [source], outputs=[target])
    while True:
        for work in (
            infer,
            lambda: client.unregister_system_shared_memory(name),
            lambda: client.register_system_shared_memory(name, key, size),
        ):
            try:
                work()
            except InferenceServerException:
                pass
for line in sys.stdin:
    if os.fork() == 0:
        try:
            run(line.strip())
        finally:
            os._exit(1)
"""


@contextmanager
def forking_clients(protocol: str, address: str) -> Iterator[Callable[[str], int]]:
    """key -> the process of a client that registered it."""
    command = [sys.executable, "-c", CLIENTS, protocol, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as forking:
        assert forking.stdin
        assert forking.stdout
        stdin, stdout = forking.stdin, forking.stdout

        def started(key: str) -> int:
            stdin.write(key + "\n")
            stdin.flush()
            return int(stdout.readline())

        yield started


def killed(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    until = time.monotonic() + 5
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < until


def test_clients_that_cut_and_die(
    either: Any, own_server: RunningServer, client_class: Any, request: pytest.FixtureRequest
) -> None:
    random.seed(7)
    other = client_class("grpc", own_server)
    x = np.ones((1, 4), np.int32)
    descriptors = Path(f"/proc/{own_server.process.pid}/fd")
    regions(either)  # its connection is open from here on
    other.infer("echo", {"INPUT0": ("INT32", x), "INPUT1": ("INT32", x)})
    base, answered = len(list(descriptors.iterdir())), 0
    protocol, address = ("grpc", own_server.grpc) if either.is_grpc else ("http", own_server.http)
    with forking_clients(protocol, address) as start:
        for number in range(KILLS):
            key = key_of(f"killed{number}")
            client = start(key)
            try:
                until = time.monotonic() + random.uniform(0, 0.1)
                while time.monotonic() < until:
                    other.infer("echo", {"INPUT0": ("INT32", x), "INPUT1": ("INT32", x)})
                    answered += 1
            finally:
                killed(client)
                (SHM / key[1:]).unlink()
            other.call("unregister_system_shared_memory")
    assert own_server.process.poll() is None
    ended = time.monotonic()
    until = ended + 5
    while mapped(own_server) and time.monotonic() < until:  # its last request ends
        either.call("unregister_system_shared_memory")  # that may have been a registration
    assert not mapped(own_server)
    assert regions(either) == {}
    while len(list(descriptors.iterdir())) > base and time.monotonic() < until:
        time.sleep(0.02)  # connections of the dead
    figures = {
        "clients_killed": KILLS,
        "another_client_answered": answered,
        "another_client_failed": 0,  # it would have ended the test
        "all_released_s": round(time.monotonic() - ended, 3),  # after the last death
        "descriptors_before": base,
        "descriptors_after": len(list(descriptors.iterdir())),
        "regions_after": own_server.scrape()["fastserve_shared_memory_regions"],
    }
    other.close()
    assert figures["descriptors_after"] <= base
    write_killed_clients(f"system shared memory, {request.node.callspec.id}", figures)


def test_what_a_dead_client_left_is_found_and_released(either: Any, own_server: RunningServer) -> None:
    with registered(either, "left", 4096):
        pass  # its owner removed the object's name and went
    assert regions(either, "left") == {"left": (key_of("left"), 0, 4096)}
    assert mapped(own_server)
    either.call("unregister_system_shared_memory", "left")
    assert not mapped(own_server)
