"""RFC 9113 section 10.5: what one connection may cause beyond useful work. Each flood ends its own connection with GOAWAY
ENHANCE_YOUR_CALM and the word of its limit; others do not notice. The exact limits: test_limits.py, csrc/codec/http2_flood.h."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from http2_expect import parametrized
from http2_frames import (
    Code,
    Peer,
    Setting,
    Target,
    Type,
    block,
    continuation,
    data,
    frame,
    grpc_target,
    headers,
    indexed,
    literal,
    ping,
    priority,
    replaced,
    rst_stream,
    settings,
    table_size,
    window_update,
)

MANY = 3000
MANY_UPDATES = 15_000  # answers earn them, so their limit is higher


def calm(reason: bytes) -> Callable[[Peer], object]:
    return lambda peer: peer.expect_connection_error(Code.ENHANCE_YOUR_CALM, reason=reason)


def streams(count: int, one: Callable[[int], bytes]) -> bytes:
    return b"".join(one(2 * n + 1) for n in range(count))


FLOODS: dict[str, tuple[Callable[[Target], bytes], Callable[[Peer], object]]] = {
    # CVE-2019-9512
    "PING": (lambda _: ping() * MANY, calm(b"too_many_pings")),
    "PING ACK": (lambda _: ping(ack=True) * MANY, calm(b"too_many_pings")),
    # CVE-2019-9515
    "SETTINGS": (lambda _: settings() * MANY, calm(b"too_many_settings")),
    "SETTINGS that change something": (
        lambda _: b"".join(settings((Setting.INITIAL_WINDOW_SIZE, n)) for n in range(MANY)),
        calm(b"too_many_settings"),
    ),
    "settings in one frame": (
        lambda _: settings(*[(Setting.INITIAL_WINDOW_SIZE, n) for n in range(2000)]),
        calm(b"too many setting"),  # libnghttp2's own words
    ),
    # CVE-2019-9513
    "PRIORITY": (
        lambda _: b"".join(priority(2 * n + 1, 0) for n in range(MANY)),
        calm(b"too_many_priority_frames"),
    ),
    # CVE-2019-9518
    "empty DATA": (lambda t: t.open(1) + data(1) * MANY, calm(b"too_many_empty_frames")),
    "DATA of padding alone": (
        lambda t: t.open(1) + data(1, padding=10) * MANY,
        calm(b"too_many_empty_frames"),
    ),
    "empty HEADERS and CONTINUATION": (
        lambda t: streams(MANY, lambda s: headers(s, b"", last=False) + continuation(s, t.head)),
        calm(b"too_many_empty_frames"),
    ),
    "unknown frames": (lambda _: frame(0x42, 0, 0, b"x") * MANY, calm(b"too_many_unknown_frames")),
    "unknown frames on an open stream": (
        lambda t: t.open(1) + frame(0x42, 0, 1) * MANY,
        calm(b"too_many_unknown_frames"),
    ),
    "WINDOW_UPDATE of the connection": (
        lambda _: window_update(0, 1) * MANY_UPDATES,
        calm(b"too_many_window_updates"),
    ),
    "WINDOW_UPDATE of a stream": (
        lambda t: t.open(1) + window_update(1, 1) * MANY_UPDATES,
        calm(b"too_many_window_updates"),
    ),
    # CVE-2023-44487, rapid reset
    "requests that are reset": (
        lambda t: streams(MANY, lambda s: t.request(s) + rst_stream(s)),
        calm(b"too_many_resets"),
    ),
    "heads that are reset": (
        lambda t: streams(MANY, lambda s: t.open(s) + rst_stream(s)),
        calm(b"too_many_resets"),
    ),
    "slow requests that are reset": (
        lambda t: streams(MANY, lambda s: t.slow(s) + rst_stream(s)),
        calm(b"too_many_resets"),
    ),
    "RST_STREAM of one stream": (lambda t: t.open(1) + rst_stream(1) * MANY, calm(b"too_many_resets")),
    # CVE-2025-8671, "MadeYouReset": the peer makes us reset.
    "malformed requests": (
        lambda t: streams(MANY, lambda s: headers(s, t.head + literal(b"Upper", b"x"))),
        calm(b"too_many_stream_errors"),
    ),
    "windows that overflow": (
        lambda t: streams(MANY, lambda s: t.open(s) + window_update(s, (1 << 31) - 1)),
        calm(b"too_many_stream_errors"),
    ),
    # CVE-2024-27316
    "CONTINUATION": (
        lambda t: headers(1, t.head, last=False) + continuation(1, literal(b"x", b"1"), last=False) * MANY,
        calm(b""),
    ),
    "empty CONTINUATION": (
        lambda t: headers(1, t.head, last=False) + continuation(1, b"", last=False) * MANY,
        calm(b""),
    ),
    "CONTINUATION of malformed headers": (
        lambda t: headers(1, literal(b"Upper", b"1"), last=False) + continuation(1, b"", last=False) * MANY,
        calm(b""),
    ),
    "CONTINUATION of a stream that is none": (
        lambda t: (
            headers(1, t.head, end=True)
            + headers(1, b"", last=False)
            + continuation(1, literal(b"x", b"1"), last=False) * MANY
        ),
        # The stream may be answered already: then its block is read and dropped.
        lambda peer: peer.expect_connection_error(Code.ENHANCE_YOUR_CALM, Code.STREAM_CLOSED),
    ),
    # CVE-2016-1544 and its kind: few bytes that become many
    "HPACK bomb": (
        lambda t: headers(1, t.head + literal(b"x-bomb", b"b" * 4000, store=True) + indexed(62) * 10_000),
        calm(b"header_list_too_large"),
    ),
    "many small headers": (
        lambda t: headers(1, t.head + literal(b"x", b"") * 3000),
        calm(b"header_list_too_large"),
    ),
    # CVE-2019-9516: the first one makes the request malformed, the others are read and dropped.
    "headers without a name": (
        lambda t: headers(1, t.head + literal(b"", b"") * 3000),
        lambda peer: peer.expect_stream_error(1, Code.PROTOCOL_ERROR),
    ),
    "trailers without end": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, literal(b"x", b"") * 3000, end=True),
        calm(b"header_list_too_large"),
    ),
    "a large header": (
        lambda t: (
            headers(1, t.head + literal(b"x-large", b"v" * 16_000), last=False)
            + continuation(1, literal(b"x", b"v" * 900))
        ),
        calm(b"header_list_too_large"),
    ),
    "table size updates": (
        lambda t: streams(200, lambda s: headers(s, table_size(0) * 2000 + t.head, end=True)),
        # Two of a block make sense, more are allowed; libnghttp2 takes them.
        lambda peer: peer.until(lambda f: f.type == Type.GOAWAY or f.stream == 399, "an end"),
    ),
}


@parametrized(FLOODS)
def test_a_flood_ends_its_connection(peer: Peer, target: Target, send: Any, expect: Any) -> None:
    with target.peer() as other:
        other.send(target.slow(1))
        peer.send(send(target))
        expect(peer)
        other.expect_answer(1)


@pytest.mark.parametrize("name", ["PING", "SETTINGS", "requests that are reset", "malformed requests"])
def test_a_flood_that_nobody_reads_the_answers_of(server: Any, target: Target, name: str) -> None:
    """The attacker does not read: our answers must not pile up. It may write as long as it likes."""
    with target.peer() as peer:
        end = time.monotonic() + 20
        sending = FLOODS[name][0](target) * 20
        peer.socket.settimeout(5)
        try:
            while time.monotonic() < end:
                peer.socket.sendall(sending)
        except OSError:
            pass  # reset, or stuck because nobody reads it any more
        assert time.monotonic() < end, "the server takes it for ever"


def test_useful_work_is_no_flood(peer: Peer, target: Target) -> None:
    """2,000 requests on one connection with what clients send beside them: a PING and a window for every answer."""
    peer.send(settings(ack=True), window_update(0, 1 << 24))
    for first in range(0, 2000, 100):
        numbers = [2 * n + 1 for n in range(first, first + 100)]
        for stream in numbers:
            peer.send(target.request(stream), window_update(0, 100))
        for stream in numbers:
            peer.expect_answer(stream)
            peer.send(ping())
    assert not any(f.type == Type.GOAWAY for f in peer.frames)


def test_a_long_stream_of_a_grpc_client_is_no_flood(server: Any) -> None:
    """What gRPC C++ does (perf_analyzer --streaming): three WINDOW_UPDATEs for every message that it reads, also when many
    came in one DATA frame."""
    target = grpc_target(server.grpc)
    fields = replaced(target.fields, b":path", b"/inference.GRPCInferenceService/ModelStreamInfer")
    with target.peer() as peer:
        peer.send(settings(ack=True), headers(1, block(fields)))
        for total in range(50, 10_000, 50):
            peer.send(data(1, target.content) * 50)
            while messages(peer) < total:
                assert peer.read(), peer.story()
            peer.send((window_update(1, 100) + window_update(1, 100) + window_update(0, 200)) * 50)
        peer.send(data(1, end=True))
        assert peer.answer(1).trailers["grpc-status"] == "0"


def messages(peer: Peer) -> int:
    """Of stream 1, all of one size."""
    body = b"".join(f.payload for f in peer.frames if f.type == Type.DATA)
    return len(body) // (5 + int.from_bytes(body[1:5], "big")) if body else 0


def test_many_connections_flood_at_once(target: Target) -> None:
    names = [name for name in FLOODS if name != "table size updates"]
    failures = []

    def attack(name: str) -> None:
        try:
            with target.peer() as peer:
                peer.send(FLOODS[name][0](target))
                FLOODS[name][1](peer)
        except AssertionError as error:
            failures.append(f"{name}: {error}")

    threads = [threading.Thread(target=attack, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for _ in range(10):
        target.serves()
    for thread in threads:
        thread.join()
    assert not failures


def test_large_answers_with_a_window_of_one_byte(target: Target) -> None:
    """CVE-2019-9511, "data dribble": many streams, each given a byte at a time."""
    with target.peer((Setting.INITIAL_WINDOW_SIZE, 1)) as peer:
        numbers = range(1, 41, 2)
        peer.send(*(target.large(stream) for stream in numbers))
        for _ in range(30):
            peer.send(*(window_update(stream, 1) for stream in numbers))
        peer.round_trip()
        target.serves()
        for stream in numbers:
            assert (
                sum(len(f.payload) for f in peer.frames if f.type == Type.DATA and f.stream == stream) <= 31
            )


def test_streams_that_never_end(target: Target) -> None:
    """A thousand requests that stop after their head, on several connections; each is freed with its connection."""
    opened = [target.peer() for _ in range(4)]
    for peer in opened:
        peer.send(*(target.open(2 * n + 1) for n in range(1000)))
        peer.round_trip()
    target.serves()
    for peer in opened:
        peer.socket.close()


def test_header_lists_of_many_small_requests_are_no_bomb(peer: Peer, target: Target) -> None:
    """The limit is one list's, not the connection's."""
    long = block([(b"x-long", b"v" * 8000)])
    for stream in range(1, 41, 2):
        peer.send(headers(stream, target.head + long), data(stream, target.content, end=True))
        peer.expect_answer(stream)
