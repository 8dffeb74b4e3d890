"""SIGTERM under 80 % of the load that a model takes, over gRPC, REST, streams and the local transport at once: nothing that the
server took in is lost, nobody is told that it is ready any more, and it ends by itself with 0.

A model that sleeps makes the capacity the same on every machine: 8 rows in 50 ms, 160 requests a second.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from model_repository import identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Infer, Refused, Rest, fp32, grpc_infer, message

from fastserve.client.local import LocalClient
from fastserve.errors import FastserveError

BATCH_S, BATCH_ROWS = 0.05, 8
LOAD = 0.8
CLIENTS = 8  # of each kind
PAUSE_S = 4 * CLIENTS / (LOAD * BATCH_ROWS / BATCH_S)  # between a client's requests
RUNS_S = 2.0  # before the signal
ADMITTED_S = 0.1  # what was sent so long before the signal is with the server
READY_S = 0.1  # ready is said so long after the signal at most
REQUEST = Infer("work", (fp32("INPUT0", 1, 4),))
UNAVAILABLE = 14


@dataclass
class Tally:
    """Of one client: when each request was sent, and how it ended ("" = well)."""

    kind: str
    ended: list[tuple[float, str]] = field(default_factory=list)


Ask = Callable[[], str]  # one request: "" or what was said


class Load:
    """Clients that ask until the server says no."""

    def __init__(self, server: RunningServer) -> None:
        self.tallies: list[Tally] = []
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()
        kinds = {"grpc": over_grpc, "rest": over_rest, "stream": over_stream, "local": over_local}
        for index in range(CLIENTS):
            for kind, made in kinds.items():
                tally = Tally(kind)
                self.tallies.append(tally)
                self._threads.append(threading.Thread(target=self._run, args=(tally, made(server), index)))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, tally: Tally, asked: Iterator[Ask], index: int) -> None:
        ask = next(asked)
        due = time.monotonic() + PAUSE_S * index / CLIENTS
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += PAUSE_S
            sent = time.monotonic()
            said = ask()
            tally.ended.append((sent, said))
            if said:
                break
        asked.close()  # type: ignore[attr-defined]


def over_grpc(server: RunningServer) -> Iterator[Ask]:
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:

        def ask() -> str:
            answer = grpc_infer(channel, REQUEST)
            return f"{answer.code}: {answer.message}" if isinstance(answer, Refused) else ""

        yield ask


def over_rest(server: RunningServer) -> Iterator[Ask]:
    rest = Rest(server.http)

    def ask() -> str:
        try:
            status, answer = rest.infer(REQUEST)
        except OSError as error:
            return f"connection: {error!r}"
        except Exception as error:
            return f"protocol: {error!r}"
        return "" if status == 200 else f"{status}: {answer}"

    yield ask
    rest.close()


def over_stream(server: RunningServer) -> Iterator[Ask]:
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answers = channel.stream_stream(
            f"{SERVICE}ModelStreamInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelStreamInferResponse.FromString,
        )(iter(requests.get, None))

        def ask() -> str:
            requests.put(message(REQUEST))
            try:
                answer = next(answers, None)
            except grpc.RpcError as error:
                return f"{error.code().value[0]}: {error.details()}"
            return "the stream ended" if answer is None else answer.error_message

        yield ask
        requests.put(None)


def over_local(server: RunningServer) -> Iterator[Ask]:
    rows = np.zeros((1, 4), np.float32)
    with LocalClient(server.addresses["local"]) as client:

        def ask() -> str:
            try:
                client.infer("work", {"INPUT0": rows})
            except FastserveError as error:
                return f"{error.code}: {error.message}"
            except OSError as error:
                return f"connection: {error!r}"
            return ""

        yield ask


class Probe:
    """A load balancer: new connections to /v2/health/ready, when the last one that was told "ready" began."""

    def __init__(self, server: RunningServer) -> None:
        self.last_ready = 0.0
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            began = time.monotonic()
            try:
                rest = Rest(self._server.http)
                if rest.ask("GET", "/v2/health/ready")[0] == 200:
                    self.last_ready = began
                rest.close()
            except (OSError, HTTPException):  # nobody is there any more
                return


class Scrape:
    """The last figures of the metrics port, which is there until everything is answered."""

    def __init__(self, server: RunningServer) -> None:
        self.last: dict[str, float] = {}
        self._server = server
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def join(self) -> None:
        self._thread.join(30)

    def _run(self) -> None:
        while True:
            try:
                self.last = self._server.scrape()
            except OSError:
                return
            time.sleep(0.02)

    def total(self, name: str) -> float:
        return sum(v for k, v in self.last.items() if k.startswith(f'{name}{{model="work"'))


@pytest.mark.parametrize("io_threads", ["1", "0"])
def test_a_stop_under_load_loses_nothing(start: Any, tmp_path: Path, io_threads: str) -> None:
    repository = tmp_path / "models"
    identity(repository, "work", [("FP32", [4])], max_batch=BATCH_ROWS, delay_s=BATCH_S)
    server = start(repository, "--io-threads", io_threads, "--local", f"unix:{tmp_path}/local.sock")
    load, probe = Load(server), Probe(server)
    load.start()
    time.sleep(RUNS_S)
    scrape = Scrape(server)
    signalled = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.wait() == 0, server.log()
    took_s = time.monotonic() - signalled
    load.stop()
    probe.stop()
    scrape.join()

    answered = Counter(t.kind for t in load.tallies for _, said in t.ended if not said)
    refused = [(t.kind, sent - signalled, said) for t in load.tallies for sent, said in t.ended if said]
    print(
        f"answered {dict(answered)}, refused {refused}, {took_s:.2f} s, ready {probe.last_ready - signalled:.3f} s"
    )
    wanted = CLIENTS * RUNS_S / PAUSE_S
    assert min(answered.values()) > 0.5 * wanted, answered
    assert len(answered) == 4
    # What was sent in good time is answered; what came later is told to go elsewhere, in the one way or the other.
    assert [r for r in refused if r[1] < -ADMITTED_S] == []
    for kind, _, said in refused:
        assert said.startswith((f"{UNAVAILABLE}: ", "503: ", "connection: ", "the stream ended")) or (
            kind == "stream" and "shutting down" in said
        ), (kind, said)
    # Every answer that the server made has reached its client.
    assert scrape.total("nv_inference_request_success") <= sum(answered.values())
    assert probe.last_ready - signalled < READY_S
    assert took_s < BATCH_S + 1.0 + 1.0  # the longest request, 1 s, and a busy machine


def test_a_reload_under_load_is_not_noticed(start: Any, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    identity(repository, "work", [("FP32", [4])], max_batch=BATCH_ROWS, delay_s=BATCH_S)
    server = start(repository, "--local", f"unix:{tmp_path}/local.sock")
    load, probe = Load(server), Probe(server)
    load.start()
    config = repository / "work" / "config.pbtxt"
    text = config.read_text()

    def reloads() -> int:
        return sum("reloaded: models have changed" in r["message"] for r in server.log_records())

    for more in range(2):
        config.write_text(text + f'parameters {{ key: "note" value {{ string_value: "{more}" }} }}\n')
        server.signal(signal.SIGHUP)
        until = time.monotonic() + 20
        while reloads() <= more and time.monotonic() < until:  # what was just written is left to settle first
            time.sleep(RUNS_S / 4)
    ended = time.monotonic()
    load.stop()
    probe.stop()
    assert [said for t in load.tallies for _, said in t.ended if said] == []
    assert probe.last_ready > ended - 0.5
    assert reloads() == 2
