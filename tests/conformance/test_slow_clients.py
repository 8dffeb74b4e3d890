"""Clients that come in thousands, say nothing, speak slowly, hang up, or do not listen: memory and file descriptors come back,
and whoever comes next is served. Over both drivers, each with a server of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from http2_frames import (
    DEFAULT_FRAME_BYTES,
    PREFACE,
    TOP,
    Setting,
    Target,
    block,
    data,
    grpc_target,
    headers,
    rest_target,
    settings,
    window_update,
)
from model_repository import identity, write_repository
from process_figures import Figures, raise_descriptor_limit, wait_until
from running_server import RunningServer
from wire import Infer, Rest, fp32, message, rest_body

IDLE_CONNECTIONS = 5000
IDLE_BYTES = 32 << 10  # of one idle connection, at most
CHURN = 20_000
HEAD_TIMEOUT_S = 10
GOOD = Infer("batch_fp32", (fp32("INPUT0", 1, 4),), id="good")
LIVE = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(scope="module", params=["2", "0"], ids=["io_threads", "uvloop"])
def crowded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    raise_descriptor_limit(IDLE_CONNECTIONS + 1000)
    folder = tmp_path_factory.mktemp("crowded")
    repository = write_repository(folder / "models")
    identity(repository, "wide", [("FP32", [-1])])
    with RunningServer(repository, folder, "--io-threads", request.param) as running:
        grpc_target(running.grpc).serves()
        rest_target(running.http).serves()
        yield running
        running.signal()
        assert running.wait() == 0, running.log()


def connected(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def figures(server: RunningServer) -> Figures:
    return Figures.of(server.process.pid)


def served(server: RunningServer, within_s: float = 5) -> None:
    started = time.monotonic()
    rest = Rest(server.http)
    assert rest.infer(GOOD)[0] == 200
    rest.close()
    grpc_target(server.grpc).serves()
    assert time.monotonic() - started < within_s


def settled(server: RunningServer) -> Figures:
    """When the connections of earlier clients are closed."""
    wait_until(lambda: open_connections(server) == 0, "connections of clients that are gone")
    return figures(server)


def open_connections(server: RunningServer) -> float:
    return sum(v for k, v in server.scrape().items() if k.startswith("fastserve_connections{"))


@contextlib.contextmanager
def nothing_is_left(server: RunningServer) -> Iterator[Figures]:
    """Descriptors are as many as before soon after the clients are gone. Gives the figures before."""
    before = settled(server)
    yield before
    wait_until(
        lambda: figures(server).descriptors <= before.descriptors,
        f"{figures(server).descriptors} descriptors are open, {before.descriptors} were",
    )
    served(server)


# --- idle


def greeted(server: RunningServer, count: int) -> list[socket.socket]:
    """Half of them gRPC past the preface, half HTTP/1.1 with a request behind them; then silent."""
    opened = []
    for number in range(count):
        grpc = number % 2 == 0
        one = connected(server.grpc if grpc else server.http)
        one.sendall(PREFACE + settings() if grpc else LIVE)
        opened.append(one)
    for one in opened:
        assert one.recv(4096)
    return opened


def test_idle_connections_cost_little_and_go_without_a_trace(crowded: RunningServer) -> None:
    """The same memory serves the next ones: after some rounds of 5,000 it is as much as one has to pay."""
    with nothing_is_left(crowded) as before:
        used = []
        for _ in range(6):
            opened = greeted(crowded, IDLE_CONNECTIONS)
            served(crowded)
            full = figures(crowded)
            used.append((full.rss_bytes - before.rss_bytes) // IDLE_CONNECTIONS)
            # Some fewer: connections of earlier scrapes, which are not counted, may still have been open before.
            assert full.descriptors >= before.descriptors + IDLE_CONNECTIONS - 4
            assert open_connections(crowded) == IDLE_CONNECTIONS
            if len(used) == 1:
                quiet = figures(crowded)
                time.sleep(2)
                busy_s = figures(crowded).cpu_s - quiet.cpu_s
                assert busy_s <= 0.2, f"{busy_s:.2f} s of processor time in 2 s without work"
            for one in opened:
                one.close()
            settled(crowded)
    assert max(used) <= IDLE_BYTES, f"bytes of a connection, round by round: {used}"
    # What is left behind would be left behind each time: about 12 KB, what a connection costs in the first round.
    assert used[-1] - used[-2] <= 2048, f"bytes of a connection, round by round: {used}"


# --- churn

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


def come_and_go(server: RunningServer, number: int, targets: tuple[Target, Target]) -> None:
    """Eight ways to leave."""
    way, target = number // 2 % 4, targets[number % 2]
    opened = connected(target.address)
    try:
        if way == 1:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif way == 2:
            opened.sendall(PREFACE + settings() + target.request(1)[:40])
        elif way == 3:
            opened.sendall(PREFACE + settings() + target.request(1))
    finally:
        opened.close()


def test_churn(crowded: RunningServer) -> None:
    targets = grpc_target(crowded.grpc), rest_target(crowded.http)
    with nothing_is_left(crowded):
        for number in range(CHURN // 4):
            come_and_go(crowded, number, targets)
        first = figures(crowded)
        for number in range(CHURN // 4, CHURN):
            come_and_go(crowded, number, targets)
        grown = figures(crowded).rss_bytes - first.rss_bytes
        assert grown <= 16 << 20, f"{grown} bytes more after three times as many"


# --- slow and half-open


def test_heads_that_never_end(crowded: RunningServer) -> None:
    """Slowloris: a byte of a header now and then. 408, and closed, ten seconds after the first byte."""
    with nothing_is_left(crowded):
        opened = [connected(crowded.http) for _ in range(300)]
        started = time.monotonic()
        for one in opened:
            one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ")
        while time.monotonic() - started < HEAD_TIMEOUT_S - 2:
            for one in opened[::10]:
                one.sendall(b"a")
            served(crowded)
            time.sleep(0.5)
        for one in opened:
            assert one.recv(4096).startswith(b"HTTP/1.1 408 ")
            assert one.recv(4096) == b""
            one.close()
        assert time.monotonic() - started < HEAD_TIMEOUT_S + 5


def test_bodies_that_hardly_come(crowded: RunningServer) -> None:
    """A byte of 300 requests every tenth of a second, over every protocol: nobody else waits for them."""
    target = rest_target(crowded.http)
    header, content = rest_body(GOOD)
    whole = header + content
    head = f"POST /v2/models/batch_fp32/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(whole)}\r\n"
    head += f"inference-header-content-length: {len(header)}\r\n\r\n"
    with nothing_is_left(crowded):
        http1 = [connected(crowded.http) for _ in range(100)]
        for one in http1:
            one.sendall(head.encode())
        others = [t.peer() for t in (target, grpc_target(crowded.grpc)) for _ in range(100)]
        targets = [target] * 100 + [grpc_target(crowded.grpc)] * 100
        for peer, each in zip(others, targets, strict=True):
            peer.send(each.open(1))
        for at in range(20):
            for one in http1:
                one.sendall(whole[at : at + 1])
            for peer, each in zip(others, targets, strict=True):
                peer.send(struct.pack(">I", 1)[1:] + struct.pack(">BBI", 0, 0, 1) + each.content[at : at + 1])
            served(crowded)
            time.sleep(0.1)
        for one in http1:  # and at last
            one.sendall(whole[20:])
            assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
            one.close()
        for peer in others:
            peer.socket.close()


def test_clients_that_close_their_side(crowded: RunningServer) -> None:
    """FIN behind the request. HTTP/1.1: the answer comes all the same; gRPC: such a client is gone."""
    target = grpc_target(crowded.grpc)
    with nothing_is_left(crowded):
        opened = []
        for _ in range(200):
            http, grpc = connected(crowded.http), connected(crowded.grpc)
            http.sendall(LIVE)
            grpc.sendall(PREFACE + settings() + target.slow(1))
            for one in (http, grpc):
                one.shutdown(socket.SHUT_WR)
                opened.append(one)
        for http in opened[::2]:
            answer = b""
            while piece := http.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200 ")
        for grpc in opened[1::2]:
            while grpc.recv(4096):
                pass
        # The server has closed its sides by itself; ours are still open.
        wait_until(lambda: open_connections(crowded) == 0, "they are still open")
        for one in opened:
            one.close()


def test_clients_that_vanish_in_the_middle(crowded: RunningServer) -> None:
    """Reset with requests in work, queued and half-sent: their work is dropped, and nothing of it is left."""
    targets = grpc_target(crowded.grpc), rest_target(crowded.http)
    with nothing_is_left(crowded):
        for number in range(100):
            target = targets[number % 2]
            peer = target.peer()
            peer.send(*(target.slow(stream) for stream in range(1, 21, 2)), target.open(21))
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            peer.socket.close()

        def busy() -> float:
            return sum(
                v for k, v in crowded.scrape().items() if k.startswith("fastserve_requests_in_flight{")
            )

        wait_until(lambda: busy() == 0, "requests of clients that are gone are still in work")


# --- clients that do not listen

WIDE = 1 << 18  # elements: 1 MiB each way


def wide() -> Infer:
    return Infer("wide", (fp32("INPUT0", WIDE),), parameters={"binary_data_output": True})


def send_until_it_blocks(one: socket.socket, data: bytes, most: int) -> None:
    """Whole requests, until the server takes no more of them or `most` bytes are out."""
    one.settimeout(0.3)
    sent = 0
    with contextlib.suppress(OSError):
        while sent < most:
            one.sendall(data)
            sent += len(data)


def http1_wide() -> bytes:
    header, content = rest_body(wide())
    lines = (
        f"POST /v2/models/wide/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {len(header) + len(content)}\r\n"
    )
    return f"{lines}inference-header-content-length: {len(header)}\r\n\r\n".encode() + header + content


def test_pipelining_without_reading(crowded: RunningServer) -> None:
    """Ten clients, each with up to 64 requests of a mebibyte: the server stops reading them, one answer each waits."""
    with nothing_is_left(crowded) as before:
        opened = [connected(crowded.http) for _ in range(10)]
        request = http1_wide()
        for one in opened:
            send_until_it_blocks(one, request, 64 << 20)
        served(crowded)
        grown = figures(crowded).rss_bytes - before.rss_bytes
        assert grown <= 10 * (8 << 20), f"{grown >> 20} MiB for ten clients that do not read"
        for one in opened:
            one.close()


def test_small_requests_with_answers_that_nobody_reads(crowded: RunningServer) -> None:
    """GETs of the largest page, pipelined, and of a small one over HTTP/2 with windows wide open."""
    path = b"/openapi.json"
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2"), (b":authority", b"x"))
    with nothing_is_left(crowded) as before:
        opened = []
        for _ in range(10):
            one = connected(crowded.http)
            send_until_it_blocks(one, b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n" * 1000, 16 << 20)
            opened.append(one)
        for _ in range(10):
            one = connected(crowded.http)
            one.sendall(
                PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, TOP)) + window_update(0, TOP - 65535)
            )
            for first in range(0, 20_000, 500):
                send_until_it_blocks(one, gets(fields, first, 500), 1)
            opened.append(one)
        served(crowded)
        grown = figures(crowded).rss_bytes - before.rss_bytes
        assert grown <= 200 << 20, f"{grown >> 20} MiB for twenty clients that do not read"
        for one in opened:
            one.close()


def gets(fields: Any, first: int, count: int) -> bytes:
    head = block(fields)
    return b"".join(headers(2 * n + 1, head, end=True) for n in range(first, first + count))


def test_grpc_answers_that_nobody_reads(crowded: RunningServer) -> None:
    """Unary answers of a mebibyte with windows wide open; what waits is bounded by the requests that were taken."""
    text = message(wide()).SerializeToString()
    framed = b"\0" + struct.pack(">I", len(text)) + text
    target = grpc_target(crowded.grpc)
    with nothing_is_left(crowded) as before:
        opened = []
        for _ in range(5):
            one = connected(crowded.grpc)
            one.sendall(
                PREFACE + settings((Setting.INITIAL_WINDOW_SIZE, TOP)) + window_update(0, TOP - 65535)
            )
            for number in range(32):
                send_until_it_blocks(one, large_request(target, 2 * number + 1, framed), 1)
            opened.append(one)
        served(crowded)
        grown = figures(crowded).rss_bytes - before.rss_bytes
        assert grown <= 5 * (24 << 20), f"{grown >> 20} MiB for five clients that do not read"
        for one in opened:
            one.close()


def large_request(target: Target, stream: int, framed: bytes) -> bytes:
    step = DEFAULT_FRAME_BYTES
    cuts = [framed[at : at + step] for at in range(0, len(framed), step)]
    return headers(stream, target.head) + b"".join(data(stream, c, end=c is cuts[-1]) for c in cuts)
