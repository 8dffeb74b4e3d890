"""RFC 9113 sections 5.2 and 6.9: flow control, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from http2_expect import Cases, Expect, answered, connection_error, either_error, parametrized, stream_error
from http2_frames import (
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW_BYTES,
    TOP,
    Code,
    Peer,
    Setting,
    Target,
    Type,
    block,
    data,
    frame,
    grpc_target,
    headers,
    replaced,
    rst_stream,
    settings,
    window_update,
)

SIZE = connection_error(Code.FRAME_SIZE_ERROR)
OVERFLOW = TOP - DEFAULT_WINDOW_BYTES + 1  # what takes a window of 65,535 beyond 2^31-1

UPDATES: Cases = {
    "0 of the connection": (lambda _: window_update(0, 0), connection_error(Code.PROTOCOL_ERROR)),
    "0 of a stream": (lambda t: t.open(1) + window_update(1, 0), either_error(Code.PROTOCOL_ERROR)),
    "1 and 2^31-1 - 65,535 of the connection": (
        lambda t: window_update(0, 1) + window_update(0, OVERFLOW - 2) + t.request(1),
        answered(),
    ),
    "overflow of the connection": (
        lambda _: window_update(0, OVERFLOW),
        connection_error(Code.FLOW_CONTROL_ERROR),
    ),
    "overflow of the connection, the largest": (
        lambda _: window_update(0, TOP),
        connection_error(Code.FLOW_CONTROL_ERROR),
    ),
    "overflow of the connection in steps": (
        lambda _: window_update(0, 1 << 30) * 2,
        connection_error(Code.FLOW_CONTROL_ERROR),
    ),
    "overflow of a stream": (
        lambda t: t.open(1) + window_update(1, OVERFLOW),
        stream_error(Code.FLOW_CONTROL_ERROR),
    ),
    "overflow of a stream in steps": (
        lambda t: t.open(1) + window_update(1, 1 << 30) * 2,
        stream_error(Code.FLOW_CONTROL_ERROR),
    ),
    "just no overflow of a stream": (
        lambda t: t.open(1) + window_update(1, OVERFLOW - 1) + data(1, t.content, end=True),
        answered(),
    ),
    "overflow of a stream by SETTINGS": (
        lambda t: t.open(1) + window_update(1, OVERFLOW - 1) + settings((Setting.INITIAL_WINDOW_SIZE, 65536)),
        # "MUST be treated as a connection error"; libnghttp2 resets the stream and leaves the others alone, which takes the
        # impossible window out of the world as well.
        either_error(Code.FLOW_CONTROL_ERROR),
    ),
    "overflow of a stream by two SETTINGS": (
        lambda t: settings((Setting.INITIAL_WINDOW_SIZE, TOP)) + t.open(1) + window_update(1, 1),
        stream_error(Code.FLOW_CONTROL_ERROR),
    ),
    "the reserved bit": (
        lambda t: t.open(1) + window_update(1, 1 << 31 | 5) + data(1, t.content, end=True),
        answered(),
    ),
    "the reserved bit and 0": (
        lambda _: window_update(0, 1 << 31),
        connection_error(Code.PROTOCOL_ERROR),
    ),
    "3 bytes": (lambda _: frame(Type.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "5 bytes": (lambda _: frame(Type.WINDOW_UPDATE, 0, 0, bytes(5)), SIZE),
    "no bytes on a stream": (lambda t: t.open(1) + frame(Type.WINDOW_UPDATE, 0, 1), SIZE),
    "on a request at work": (lambda t: t.slow(1) + window_update(1, 1000), answered()),
    "on a stream that was reset": (
        lambda t: t.open(1) + rst_stream(1) + window_update(1, 1000) + t.request(3),
        answered(3),
    ),
}


@parametrized(UPDATES)
def test_6_9_window_update(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


# --- what we send


def received(peer: Peer, stream: int = 1) -> int:
    return sum(len(f.payload) for f in peer.frames if f.type == Type.DATA and f.stream == stream)


def wait_for(peer: Peer, count: int, stream: int = 1) -> None:
    """`count` bytes of DATA came, and no more are on their way."""
    while received(peer, stream) < count:
        assert peer.read(), peer.story()
    peer.round_trip()
    assert received(peer, stream) == count


@pytest.fixture
def stalled(target: Target) -> Iterator[Peer]:
    """A client whose streams begin with a window of 0."""
    with target.peer((Setting.INITIAL_WINDOW_SIZE, 0)) as opened:
        yield opened


def test_6_9_1_no_data_without_a_window(stalled: Peer, target: Target) -> None:
    stalled.send(target.request(1))
    stalled.until(lambda f: f.type == Type.HEADERS, "HEADERS")  # not under flow control
    wait_for(stalled, 0)
    stalled.send(window_update(1, 1))
    wait_for(stalled, 1)
    stalled.send(window_update(1, 2))
    wait_for(stalled, 3)
    stalled.send(window_update(1, 1 << 20))
    stalled.expect_answer(1)


def test_6_9_1_the_stream_window_is_kept(target: Target) -> None:
    with target.peer((Setting.INITIAL_WINDOW_SIZE, 1000)) as peer:
        peer.send(target.large(1))
        wait_for(peer, 1000)
        for step in (1, 499, 5000):
            before = received(peer)
            peer.send(window_update(1, step))
            wait_for(peer, before + step)
        peer.send(window_update(1, 1 << 20))
        peer.expect_answer(1)


def test_6_9_1_the_connection_window_is_kept(target: Target) -> None:
    """Over all streams together; the answers are more than 65,535 bytes."""
    with target.peer((Setting.INITIAL_WINDOW_SIZE, TOP)) as peer:
        for stream in (1, 3, 5):
            peer.send(target.large(stream))
        total = 0
        while total < DEFAULT_WINDOW_BYTES:
            assert peer.read(), peer.story()
            total = sum(received(peer, stream) for stream in (1, 3, 5))
        peer.round_trip()
        assert sum(received(peer, stream) for stream in (1, 3, 5)) == DEFAULT_WINDOW_BYTES
        peer.send(window_update(0, 1 << 20))
        answered(1, 3, 5)(peer)


def test_6_9_1_a_stalled_stream_leaves_the_others(peer: Peer, target: Target) -> None:
    peer.send(settings((Setting.INITIAL_WINDOW_SIZE, 0)), target.request(1))
    peer.until(lambda f: f.type == Type.HEADERS, "HEADERS")
    peer.send(target.open(3), window_update(3, 1 << 20), data(3, target.content, end=True))
    peer.expect_answer(3)
    wait_for(peer, 0)
    peer.send(window_update(1, 1 << 20))
    peer.expect_answer(1)


def test_6_9_2_a_window_opened_by_settings(stalled: Peer, target: Target) -> None:
    stalled.send(target.request(1))
    stalled.until(lambda f: f.type == Type.HEADERS, "HEADERS")
    stalled.send(settings((Setting.INITIAL_WINDOW_SIZE, 5)))
    wait_for(stalled, 5)
    stalled.send(settings((Setting.INITIAL_WINDOW_SIZE, 65535)))
    stalled.expect_answer(1)


def test_6_9_2_a_negative_window(target: Target) -> None:
    """10 bytes are out when the initial window falls to 2: 8 more have to be given before the first goes."""
    with target.peer((Setting.INITIAL_WINDOW_SIZE, 10)) as peer:
        peer.send(target.large(1))
        wait_for(peer, 10)
        peer.send(settings((Setting.INITIAL_WINDOW_SIZE, 2)))
        wait_for(peer, 10)
        peer.send(window_update(1, 8))
        wait_for(peer, 10)
        peer.send(window_update(1, 1))
        wait_for(peer, 11)
        peer.send(settings((Setting.INITIAL_WINDOW_SIZE, 0)))  # -2
        peer.send(window_update(1, 2))
        wait_for(peer, 11)
        peer.send(settings((Setting.INITIAL_WINDOW_SIZE, 65535)))
        peer.expect_answer(1)


def test_6_9_2_settings_do_not_change_the_connection_window(target: Target) -> None:
    with target.peer((Setting.INITIAL_WINDOW_SIZE, TOP)) as peer:
        peer.send(target.large(1), target.large(3))
        while received(peer, 1) + received(peer, 3) < DEFAULT_WINDOW_BYTES:
            assert peer.read(), peer.story()
        peer.send(settings((Setting.INITIAL_WINDOW_SIZE, TOP - 1)))
        peer.round_trip()
        assert received(peer, 1) + received(peer, 3) == DEFAULT_WINDOW_BYTES
        peer.send(window_update(0, 1 << 20))
        answered(1, 3)(peer)


def test_6_9_a_stalled_stream_can_be_reset(stalled: Peer, target: Target) -> None:
    stalled.send(target.large(1))
    stalled.until(lambda f: f.type == Type.HEADERS, "HEADERS")
    stalled.send(rst_stream(1), window_update(1, 1 << 20), target.open(3))
    stalled.send(window_update(3, 1 << 20), data(3, target.content, end=True))
    stalled.expect_answer(3)
    assert received(stalled, 1) == 0


# --- what we take


def test_5_2_the_server_opens_its_connection_window(peer: Peer) -> None:
    """Beyond 65,535, by WINDOW_UPDATE: there is no setting for it."""
    peer.round_trip()
    given = sum(
        int.from_bytes(f.payload, "big")
        for f in peer.frames
        if f.type == Type.WINDOW_UPDATE and f.stream == 0
    )
    assert given + DEFAULT_WINDOW_BYTES >= 1 << 20
    assert peer.sent_settings()[Setting.INITIAL_WINDOW_SIZE] >= DEFAULT_WINDOW_BYTES


def window_of(peer: Peer, stream: int) -> int:
    """What the server has given for `stream`, 0 for the connection."""
    first = DEFAULT_WINDOW_BYTES if stream == 0 else peer.sent_settings()[Setting.INITIAL_WINDOW_SIZE]
    mine = (f for f in peer.frames if f.type == Type.WINDOW_UPDATE and f.stream == stream)
    return first + sum(int.from_bytes(f.payload, "big") for f in mine)


def send_within_windows(
    peer: Peer, stream: int, count: int, sent: dict[int, int], padding: int | None
) -> None:
    """`count` DATA frames of the largest size, each only when both windows have room."""
    content = bytes(DEFAULT_FRAME_BYTES if padding is None else DEFAULT_FRAME_BYTES - 1 - padding)
    for _ in range(count):
        for window in (0, stream):
            while window_of(peer, window) - sent.get(window, 0) < DEFAULT_FRAME_BYTES:
                assert peer.read(), peer.story()
            sent[window] = sent.get(window, 0) + DEFAULT_FRAME_BYTES
        peer.send(data(stream, content, padding=padding))


@pytest.mark.parametrize("padding", [None, 255])
def test_6_9_window_comes_back_for_data_that_is_dropped(
    peer: Peer, target: Target, padding: int | None
) -> None:
    """DATA of a request that was refused at its head counts for the connection, and is given back: 8 MiB, twice the window."""
    refused = block([*replaced(target.fields, b"content-type", b"text/plain"), (b"content-encoding", b"br")])
    peer.send(headers(1, refused))
    peer.until(lambda f: f.stream == 1 and f.type == Type.HEADERS, "an answer")
    peer.round_trip()
    sent: dict[int, int] = {}
    frames = 8 * (1 << 20) // DEFAULT_FRAME_BYTES
    for n in range(frames // 32):  # the stream is gone, so its own window is not waited for: 512 KiB each
        stream = 2 * n + 3
        peer.send(headers(stream, refused))
        send_within_windows(peer, stream, 32, sent, padding)
    peer.send(target.request(2 * frames + 3))
    peer.expect_answer(2 * frames + 3)


def test_6_9_window_comes_back_for_data_of_streams_that_were_reset(peer: Peer, target: Target) -> None:
    sent: dict[int, int] = {}
    for n in range(24):
        stream = 2 * n + 1
        peer.send(target.open(stream))
        send_within_windows(peer, stream, 15, sent, None)
        peer.send(rst_stream(stream))
    peer.send(target.request(101))
    peer.expect_answer(101)


def test_6_9_1_data_beyond_the_window_is_refused(server: Any) -> None:
    """A ModelStreamInfer that holds its window back (its requests are in work) and a client that sends on."""
    target = grpc_target(server.grpc)
    fields = replaced(target.fields, b":path", b"/inference.GRPCInferenceService/ModelStreamInfer")
    with target.peer((Setting.INITIAL_WINDOW_SIZE, 0)) as peer:
        peer.send(settings(ack=True), headers(1, block(fields)))
        # Answers pile up at the server because our window is 0; sooner or later it stops giving us window.
        content = target.content * (DEFAULT_FRAME_BYTES // len(target.content))
        for _ in range((16 << 20) // len(content)):
            peer.send(data(1, content))
        peer.expect_error(1, Code.FLOW_CONTROL_ERROR)
