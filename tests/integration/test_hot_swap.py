"""Versions that take each other's place while clients ask over gRPC and REST: nothing fails, nobody hears from a version that
was replaced, and the new one is there at once. The long form is a benchmark (benchmarks/scenarios/swaps.py)."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from wire import INFER, Infer, Rest, Tensor, message

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from harness.swapper import WIDTH, Swapper, write_repository

SWAPS = 20
CLIENTS = 2  # of each protocol
VISIBLE_S = 1.0
REQUEST = Infer("swap", (Tensor("INPUT0", "FP32", (1, WIDTH), bytes(4 * WIDTH)),), id="s")
ARGUMENTS = {
    "api": ("--model-control-mode", "explicit", "--load-model", "*"),
    "poll": ("--model-control-mode", "poll", "--repository-poll-secs", "0.1"),
}


@dataclass
class Seen:
    """What all clients have seen; `newest` only grows."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    newest: int = 0
    answers: int = 0
    faults: list[str] = field(default_factory=list)

    def check(self, newest_when_asked: int, name: int, content: set[float]) -> None:
        with self.lock:
            self.answers += 1
            if content != {float(name)}:
                self.faults.append(f"version {name} with the content of {content}")
            if name < newest_when_asked:
                self.faults.append(f"version {name}, asked after {newest_when_asked} had answered")
            self.newest = max(self.newest, name)

    def fail(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)


def over_grpc(address: str, seen: Seen, stop: threading.Event) -> None:
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(INFER)
        while not stop.is_set():
            asked = seen.newest
            try:
                answer = service_pb2.ModelInferResponse.FromString(
                    call(message(REQUEST).SerializeToString(), timeout=30)
                )
            except grpc.RpcError as error:
                seen.fail(str(error))
                return
            values = np.frombuffer(answer.raw_output_contents[0], np.float32)
            seen.check(asked, int(answer.model_version), set(values.tolist()))


def over_rest(address: str, seen: Seen, stop: threading.Event) -> None:
    rest = Rest(address)
    while not stop.is_set():
        asked = seen.newest
        status, body = rest.infer(REQUEST)
        if status != 200:
            seen.fail(f"{status}: {body}")
            return
        output = body["outputs"][0]
        values = (
            np.frombuffer(output["data"], np.float32)
            if isinstance(output["data"], bytes)
            else np.array(output["data"])
        )
        seen.check(asked, int(body["model_version"]), set(values.ravel().tolist()))
    rest.close()


@pytest.mark.parametrize("way", ["api", "poll"])
def test_nobody_notices_twenty_swaps(start: Any, tmp_path: Path, way: str) -> None:
    model = write_repository(tmp_path, hidden=0)
    server = start(model.parent, *ARGUMENTS[way])
    seen, stop = Seen(), threading.Event()
    asking: list[tuple[Callable[..., None], str]] = [
        (over_grpc, server.grpc),
        (over_rest, server.http),
    ] * CLIENTS
    with ThreadPoolExecutor(len(asking)) as pool:
        clients: list[Future[None]] = [pool.submit(ask, address, seen, stop) for ask, address in asking]
        try:
            swaps = Swapper(model, server.http, way, hidden=0).run(SWAPS, every_s=0.05)
            until = time.monotonic() + 5
            while seen.newest <= SWAPS and time.monotonic() < until:
                time.sleep(0.01)
        finally:
            stop.set()
        for client in clients:
            client.result()
    assert swaps.failed == []
    assert seen.faults[:3] == []
    assert len(swaps.took_s) == SWAPS
    assert seen.newest == SWAPS + 1
    assert seen.answers > SWAPS
    assert max(swaps.visible_s) < VISIBLE_S
    assert server.log().count("Traceback") == 0
