"""RFC 9113 section 5: streams, their states and numbers, how many there may be, priorities, errors."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from http2_expect import (
    Cases,
    Expect,
    answered,
    answered_or,
    connection_error,
    either_error,
    ignored,
    parametrized,
    stream_error,
)
from http2_frames import (
    END_HEADERS,
    END_STREAM,
    TOP,
    Code,
    Peer,
    Setting,
    Target,
    Type,
    block,
    continuation,
    data,
    dependency,
    frame,
    headers,
    priority,
    rst_stream,
    settings,
    window_update,
)

# --- 5.1 stream states

IDLE = connection_error(Code.PROTOCOL_ERROR)
IDLE_CASES: Cases = {
    "DATA": (lambda _: data(1, b"x"), IDLE),
    "DATA with END_STREAM": (lambda _: data(1, b"", end=True), IDLE),
    "DATA on a high stream": (lambda _: data(TOP, b"x"), IDLE),
    "RST_STREAM": (lambda _: rst_stream(1), IDLE),
    "WINDOW_UPDATE": (lambda _: window_update(1, 100), IDLE),
    "WINDOW_UPDATE on an even stream": (lambda _: window_update(2, 100), IDLE),
    "CONTINUATION": (lambda _: continuation(1, b"\x82"), IDLE),
    "RST_STREAM on an even stream": (lambda _: rst_stream(2), IDLE),
    "PRIORITY": (lambda t: priority(1, 0) + t.request(1), answered()),
    "PRIORITY on a later stream": (lambda t: priority(101, 0) + t.request(1), answered()),
    "HEADERS": (lambda t: t.request(1), answered()),
}


@parametrized(IDLE_CASES)
def test_5_1_idle(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """ "Receiving any frame other than HEADERS or PRIORITY on a stream in this state MUST be treated as a connection error of
    type PROTOCOL_ERROR"."""
    peer.send(send(target))
    expect(peer)


HALF_CLOSED_CASES: Cases = {
    "DATA": (lambda _: data(1, b"x"), either_error(Code.STREAM_CLOSED)),
    "empty DATA with END_STREAM": (lambda _: data(1, b"", end=True), either_error(Code.STREAM_CLOSED)),
    "HEADERS": (lambda t: t.open(1), either_error(Code.STREAM_CLOSED)),
    "trailers": (lambda t: headers(1, b"", end=True), either_error(Code.STREAM_CLOSED)),
    "CONTINUATION": (lambda _: continuation(1, b"\x82"), connection_error(Code.PROTOCOL_ERROR)),
    "WINDOW_UPDATE": (lambda _: window_update(1, 100), answered()),
    "PRIORITY": (lambda _: priority(1, 0), answered()),
    "an unknown frame": (lambda _: frame(0x16, 0, 1, b"x"), answered()),
    "RST_STREAM": (lambda t: rst_stream(1) + t.request(3), answered(3)),
}


@parametrized(HALF_CLOSED_CASES)
def test_5_1_half_closed(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """The request is complete, its answer is on the way: only WINDOW_UPDATE, PRIORITY and RST_STREAM may still come."""
    peer.send(target.slow(1))
    peer.send(send(target))
    expect(peer)


def closed_by_client(peer: Peer, target: Target) -> None:
    peer.send(target.open(1), rst_stream(1))


def closed_by_the_answer(peer: Peer, target: Target) -> None:
    peer.send(target.request(1))
    peer.expect_answer(1)


def closed_by_server(peer: Peer, target: Target) -> None:
    peer.send(headers(1, target.head + block([(b"Upper", b"x")])))
    peer.expect_stream_error(1, Code.PROTOCOL_ERROR)


def ignored_or(*codes: int) -> Expect:
    """ "An endpoint MAY treat receipt of any other type of frame on a closed stream as a connection error"; or forget the
    stream and ignore the frame, as libnghttp2 does without a list of closed streams."""

    def check(peer: Peer) -> None:
        try:
            peer.expect_nothing()
        except AssertionError:
            peer.expect_connection_error(*codes)

    return check


CLOSED_CASES: Cases = {
    "DATA": (lambda _: data(1, b"x"), ignored_or(Code.STREAM_CLOSED)),
    "DATA with END_STREAM": (lambda _: data(1, b"x", end=True), ignored_or(Code.STREAM_CLOSED)),
    "HEADERS": (lambda t: t.open(1), ignored_or(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)),
    "trailers": (lambda _: headers(1, b"", end=True), ignored_or(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR)),
    "CONTINUATION": (lambda _: continuation(1, b"\x82"), connection_error(Code.PROTOCOL_ERROR)),
    "WINDOW_UPDATE": (lambda _: window_update(1, 100), ignored),
    "RST_STREAM": (lambda _: rst_stream(1), ignored_or(Code.STREAM_CLOSED)),
    "PRIORITY": (lambda _: priority(1, 0), ignored),
    "an unknown frame": (lambda _: frame(0x16, 0, 1, b"x"), ignored),
}


@pytest.mark.parametrize("close", [closed_by_client, closed_by_the_answer])
@parametrized(CLOSED_CASES)
def test_5_1_closed(peer: Peer, target: Target, close: Any, send: Any, expect: Expect) -> None:
    close(peer, target)
    peer.send(send(target))
    expect(peer)


ON_THEIR_WAY: Cases = {
    name: (CLOSED_CASES[name][0], ignored)
    for name in ("DATA", "DATA with END_STREAM", "trailers", "WINDOW_UPDATE", "RST_STREAM", "PRIORITY")
}


@parametrized(ON_THEIR_WAY)
def test_5_1_closed_by_the_server(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """What was under way when the server reset the stream is discarded, and other streams go on."""
    closed_by_server(peer, target)
    before = len(peer.frames)
    peer.send(send(target), target.request(3))
    peer.expect_answer(3)
    assert not any(f.type in (Type.GOAWAY, Type.RST_STREAM) for f in peer.frames[before:]), peer.story()


# --- 5.1.1 stream identifiers

WRONG_NUMBER = connection_error(Code.PROTOCOL_ERROR)
NUMBERS: Cases = {
    "even": (lambda t: headers(2, t.head, end=True), WRONG_NUMBER),
    "zero": (lambda t: headers(0, t.head, end=True), WRONG_NUMBER),
    "gaps": (lambda t: t.request(5) + t.request(1001), answered(5, 1001)),
    "the highest": (lambda t: t.request(TOP), answered(TOP)),
    # Streams below one that was opened are closed, not idle.
    "lower than an open one": (
        lambda t: t.open(5) + t.open(3),
        ignored_or(Code.PROTOCOL_ERROR, Code.STREAM_CLOSED),
    ),
    "DATA on one that was passed over": (
        lambda t: t.open(5) + data(3, b"x"),
        ignored_or(Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
    "WINDOW_UPDATE on one that was passed over": (lambda t: t.open(5) + window_update(3, 1), ignored),
}


@parametrized(NUMBERS)
def test_5_1_1_identifiers(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


# --- 5.1.2 concurrency


def test_5_1_2_the_server_says_how_many(peer: Peer) -> None:
    assert 100 <= peer.sent_settings()[Setting.MAX_CONCURRENT_STREAMS] <= 1 << 20


@pytest.mark.parametrize("acknowledged", [False, True])
def test_5_1_2_a_stream_too_many(peer: Peer, target: Target, acknowledged: bool) -> None:
    """Refused alone as long as the client may not have read our SETTINGS; "PROTOCOL_ERROR or REFUSED_STREAM" afterwards, of
    which libnghttp2 chooses to end the connection."""
    most = peer.sent_settings()[Setting.MAX_CONCURRENT_STREAMS]
    if acknowledged:
        peer.send(settings(ack=True))
    peer.send(*(target.open(2 * n + 1) for n in range(most)))
    peer.expect_nothing()
    one_more = 2 * most + 1
    peer.send(target.open(one_more))
    if acknowledged:
        peer.expect_error(one_more, Code.PROTOCOL_ERROR, Code.REFUSED_STREAM)
        return
    peer.expect_stream_error(one_more, Code.REFUSED_STREAM)
    peer.send(data(1, target.content, end=True))  # those within the limit are served, and make room
    peer.expect_answer(1)
    peer.send(target.request(one_more + 2))
    peer.expect_answer(one_more + 2)


def test_5_1_2_answers_and_resets_make_room(peer: Peer, target: Target) -> None:
    """Three times the limit, one after the other."""
    most = peer.sent_settings()[Setting.MAX_CONCURRENT_STREAMS]
    peer.send(settings(ack=True), window_update(0, 1 << 24))
    for first in range(0, 3 * most, most // 4):
        streams = [2 * n + 1 for n in range(first, first + most // 4)]
        peer.send(*(target.request(stream) for stream in streams))
        for stream in streams:
            peer.expect_answer(stream)


# --- 5.3 priorities: deprecated, and switched off by SETTINGS_NO_RFC7540_PRIORITIES

# A stream that depends on itself was an error in RFC 7540; RFC 9113 has no such rule.
SELF = answered_or(Code.PROTOCOL_ERROR)
PRIORITIES: Cases = {
    "PRIORITY before": (lambda t: priority(1, 0) + t.request(1), answered()),
    "PRIORITY after": (lambda t: t.request(1) + priority(1, 0), answered()),
    "PRIORITY on a stream that is not there": (lambda t: t.request(1) + priority(1, 77), answered()),
    "PRIORITY of an even stream": (lambda t: priority(2, 0) + t.request(1), answered()),
    "exclusive": (
        lambda t: (
            t.open(1)
            + frame(Type.PRIORITY, 0, 1, dependency(3, exclusive=True))
            + data(1, t.content, end=True)
        ),
        answered(),
    ),
    "a circle": (
        lambda t: t.open(1) + t.open(3) + priority(1, 3) + priority(3, 1) + data(1, t.content, end=True),
        answered(),
    ),
    "HEADERS with priority": (
        lambda t: headers(1, t.head, priority=dependency(0, 255)) + data(1, t.content, end=True),
        answered(),
    ),
    "HEADERS with a dependency on a later stream": (
        lambda t: headers(1, t.head, priority=dependency(11)) + data(1, t.content, end=True),
        answered(),
    ),
    "PRIORITY on itself": (
        lambda t: t.open(1) + priority(1, 1) + data(1, t.content, end=True),
        SELF,
    ),
    "HEADERS on itself": (
        lambda t: headers(1, t.head, priority=dependency(1)) + data(1, t.content, end=True),
        SELF,
    ),
}


@parametrized(PRIORITIES)
def test_5_3_priorities_are_ignored(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


def test_5_3_the_server_says_that_it_ignores_them(peer: Peer) -> None:
    assert peer.sent_settings()[Setting.NO_RFC7540_PRIORITIES] == 1


# --- 5.4 errors


def test_5_4_1_goaway_names_the_last_stream(peer: Peer, target: Target) -> None:
    """So that a client knows what it may send again elsewhere."""
    for stream in (1, 3, 5):
        peer.send(target.request(stream))
        peer.expect_answer(stream)
    peer.send(continuation(7, b""))
    (last, _) = struct.unpack_from(">II", peer.expect_connection_error(Code.PROTOCOL_ERROR).payload)
    assert last == 5


def test_5_4_1_what_was_answered_before_an_error_arrives(peer: Peer, target: Target) -> None:
    """The answer and the violation in one segment."""
    peer.send(target.request(1))
    peer.expect_answer(1)
    peer.send(target.request(3) + frame(Type.DATA, 0, 0, b"x"))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_5_4_1_nothing_is_served_after_an_error(peer: Peer, target: Target) -> None:
    peer.send(data(0, b"x") + target.request(1))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)
    assert not any(f.type == Type.HEADERS for f in peer.frames)


@pytest.mark.parametrize("others", [1, 20])
def test_5_4_2_a_stream_error_leaves_the_others(peer: Peer, target: Target, others: int) -> None:
    bad = 2 * others + 1
    peer.send(*(target.slow(2 * n + 1) for n in range(others)))
    peer.send(headers(bad, target.head + block([(b"Upper", b"x")]), end=True))
    stream_error(Code.PROTOCOL_ERROR, stream=bad)(peer)
    answered(*(2 * n + 1 for n in range(others)))(peer)


def test_5_4_2_no_answer_to_a_reset(peer: Peer, target: Target) -> None:
    """ "An endpoint MUST NOT send a RST_STREAM frame in response to a RST_STREAM frame"."""
    peer.send(target.open(1), rst_stream(1), rst_stream(1, 0xFFFFFFFF))
    ignored(peer)


def test_5_4_3_a_connection_that_is_cut_off(target: Target) -> None:
    """Requests in flight, half-sent frames: nothing is left of them."""
    for tail in (b"", target.open(5)[:7], frame(Type.HEADERS, END_HEADERS | END_STREAM, 5, b"", length=100)):
        with target.peer() as peer:
            peer.send(target.slow(1), target.open(3), tail)


# --- 5.5 extensions


def test_5_5_an_unknown_frame_within_a_header_block(peer: Peer, target: Target) -> None:
    """ "Extension frames that appear in the middle of a field block MUST be treated as a connection error"."""
    peer.send(headers(1, target.head, last=False), frame(0x40, 0, 1, b""))
    peer.expect_connection_error(Code.PROTOCOL_ERROR)


def test_5_5_unknown_settings_are_ignored(peer: Peer, target: Target) -> None:
    peer.send(settings((0xF000, 1), (0, 7)), target.request(1))
    peer.expect_answer(1)
