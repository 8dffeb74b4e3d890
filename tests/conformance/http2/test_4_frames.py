"""RFC 9113 section 4: the frame's head, its size, and header blocks in pieces."""

from __future__ import annotations

from typing import Any

import pytest
from http2_expect import Cases, answered, connection_error, either_error, ignored, parametrized
from http2_frames import (
    ACK,
    DEFAULT_FRAME_BYTES,
    END_HEADERS,
    END_STREAM,
    PADDED,
    TOP,
    Code,
    Peer,
    Setting,
    Target,
    Type,
    block,
    continuation,
    data,
    frame,
    headers,
    indexed,
    literal,
    ping,
    priority,
    rst_stream,
    settings,
    window_update,
)

RESERVED = 1 << 31
UNKNOWN = 0x16
MORE = DEFAULT_FRAME_BYTES + 1

FORMAT: Cases = {
    "unknown type": (lambda t: frame(UNKNOWN, 0, 0, b"12345678") + t.request(1), answered()),
    "unknown type, highest": (lambda t: frame(0xFF, 0xFF, 0, b"1") + t.request(1), answered()),
    "unknown type on an idle stream": (lambda t: frame(UNKNOWN, 0, 77, b"") + t.request(1), answered()),
    "unknown type of the largest size": (
        lambda t: frame(UNKNOWN, 0, 0, bytes(DEFAULT_FRAME_BYTES)) + t.request(1),
        answered(),
    ),
    "unknown type within a request": (
        lambda t: t.open(1) + frame(UNKNOWN, 0xF, 1, b"x") + data(1, t.content, end=True),
        answered(),
    ),
    # Types of extensions that we do not speak: ALTSVC, ORIGIN, PRIORITY_UPDATE with a payload that is none.
    "ALTSVC": (lambda t: frame(0xA, 0, 0, b"\0\0") + t.request(1), answered()),
    "ORIGIN": (lambda t: frame(0xC, 0, 0, b"\0\1x") + t.request(1), answered()),
    "reserved bit": (
        lambda t: (
            frame(Type.HEADERS, END_HEADERS, 1 | RESERVED, t.head)
            + frame(Type.DATA, END_STREAM, 1 | RESERVED, t.content)
        ),
        answered(),
    ),
    "reserved bit on stream 0": (lambda t: frame(Type.PING, 0, RESERVED, bytes(8)), ignored),
    "undefined flags of HEADERS and DATA": (
        lambda t: (
            frame(Type.HEADERS, END_HEADERS | 0xD2, 1, t.head)
            + frame(Type.DATA, END_STREAM | 0xF6, 1, t.content)
        ),
        answered(),
    ),
    "undefined flags of PING": (lambda t: frame(Type.PING, 0xFE, 0, bytes(8)) + t.request(1), answered()),
    "undefined flags of SETTINGS": (lambda t: frame(Type.SETTINGS, 0xFE, 0) + t.request(1), answered()),
    "undefined flags of WINDOW_UPDATE": (
        lambda t: frame(Type.WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1") + t.request(1),
        answered(),
    ),
    "undefined flags of RST_STREAM": (
        lambda t: t.open(1) + frame(Type.RST_STREAM, 0xFF, 1, b"\0\0\0\x08") + t.request(3),
        answered(3),
    ),
}

# Section 4.2: "An endpoint MUST send an error code of FRAME_SIZE_ERROR if a frame exceeds the size defined in
# SETTINGS_MAX_FRAME_SIZE"; of the connection where the frame could alter the state of all of it, which libnghttp2 chooses for
# every type. DATA may end the stream alone.
TOO_LARGE = connection_error(Code.FRAME_SIZE_ERROR)
SIZE: Cases = {
    "DATA of 16,384 bytes": (lambda t: t.large(1), answered()),
    "HEADERS of 16,384 bytes": (
        lambda t: headers(1, t.head, padding=255) + data(1, t.content, end=True),
        answered(),
    ),
    "DATA of 16,385 bytes": (
        lambda t: t.open(1) + data(1, bytes(MORE), end=True),
        either_error(Code.FRAME_SIZE_ERROR),
    ),
    "DATA with padding, 16,385 bytes": (
        lambda t: t.open(1) + data(1, bytes(MORE - 256), padding=255, end=True),
        either_error(Code.FRAME_SIZE_ERROR),
    ),
    "HEADERS of 16,385 bytes": (lambda t: headers(1, t.head + bytes(MORE - len(t.head))), TOO_LARGE),
    "CONTINUATION of 16,385 bytes": (
        lambda t: headers(1, t.head, last=False) + continuation(1, bytes(MORE)),
        TOO_LARGE,
    ),
    "SETTINGS of 16,386 bytes": (lambda t: settings(*[(0xFF, 0)] * 2731), TOO_LARGE),
    "PING of 16,385 bytes": (lambda t: ping(bytes(MORE)), TOO_LARGE),
    "GOAWAY of 16,385 bytes": (lambda t: frame(Type.GOAWAY, 0, 0, bytes(MORE)), TOO_LARGE),
    "an unknown frame of 16,385 bytes": (lambda t: frame(UNKNOWN, 0, 0, bytes(MORE)), TOO_LARGE),
    "the largest length there is": (lambda t: frame(Type.DATA, 0, 1, b"", length=(1 << 24) - 1), TOO_LARGE),
}


def opened_then(*middle: bytes) -> Any:
    """A header block that is not complete, and what must not come before its end."""
    return lambda t: headers(1, t.head[:10], last=False) + b"".join(middle) + continuation(1, t.head[10:])


BROKEN_OFF = connection_error(Code.PROTOCOL_ERROR)
BLOCKS: Cases = {
    "DATA within": (opened_then(data(1, b"x")), BROKEN_OFF),
    "HEADERS within": (opened_then(headers(1, b"")), BROKEN_OFF),
    "HEADERS of another stream within": (opened_then(headers(3, b"\x82")), BROKEN_OFF),
    "CONTINUATION of another stream": (opened_then(continuation(3, b"\x82")), BROKEN_OFF),
    "CONTINUATION of stream 0": (opened_then(continuation(0, b"\x82")), BROKEN_OFF),
    "PRIORITY within": (opened_then(priority(3, 0)), BROKEN_OFF),
    "RST_STREAM within": (opened_then(rst_stream(1)), BROKEN_OFF),
    "SETTINGS within": (opened_then(settings()), BROKEN_OFF),
    "SETTINGS ACK within": (opened_then(settings(ack=True)), BROKEN_OFF),
    "PING within": (opened_then(ping()), BROKEN_OFF),
    "WINDOW_UPDATE within": (opened_then(window_update(0, 1)), BROKEN_OFF),
    "an unknown frame within": (opened_then(frame(UNKNOWN, 0, 0)), BROKEN_OFF),
    "nothing within": (lambda t: opened_then()(t) + data(1, t.content, end=True), answered()),
    "cut within a string": (
        lambda t: (
            headers(1, t.head[:-3], last=False) + continuation(1, t.head[-3:]) + data(1, t.content, end=True)
        ),
        answered(),
    ),
    # "A decoding error in a header block MUST be treated as a connection error of type COMPRESSION_ERROR".
    "a block that ends within a string": (
        lambda t: headers(1, t.head[:-3]),
        connection_error(Code.COMPRESSION_ERROR),
    ),
    "a block that does not decode": (
        lambda t: headers(1, t.head + indexed(70)),
        connection_error(Code.COMPRESSION_ERROR),
    ),
    "trailers that do not decode": (
        lambda t: t.open(1) + headers(1, indexed(70), end=True),
        connection_error(Code.COMPRESSION_ERROR),
    ),
    "a block that does not decode on a stream that was reset": (
        lambda t: t.open(1) + rst_stream(1) + headers(1, indexed(70), end=True),
        connection_error(Code.COMPRESSION_ERROR, Code.STREAM_CLOSED, Code.PROTOCOL_ERROR),
    ),
}


@parametrized(FORMAT)
def test_4_1_frame_format(peer: Peer, target: Target, send: Any, expect: Any) -> None:
    """Unknown types, undefined flags and the reserved bit are ignored."""
    peer.send(send(target))
    expect(peer)


@parametrized(SIZE)
def test_4_2_frame_size(peer: Peer, target: Target, send: Any, expect: Any) -> None:
    peer.send(send(target))
    expect(peer)


@parametrized(BLOCKS)
def test_4_3_header_blocks(peer: Peer, target: Target, send: Any, expect: Any) -> None:
    """Pieces of a block follow each other with nothing between them, and decode."""
    peer.send(send(target))
    expect(peer)


def stored(index: int, target: Target) -> bytes:
    """The rest of the path of a request, out of the dynamic table."""
    fields = [f for f in target.fields if f[0] != b":path"]
    return block(fields[:2]) + indexed(index) + block(fields[2:])


FIRST_DYNAMIC = 62


@pytest.mark.parametrize("where", ["trailers", "malformed request", "refused request", "reset stream"])
def test_4_3_the_table_keeps_up(peer: Peer, target: Target, where: str) -> None:
    """Header blocks that are not used change HPACK's table all the same: the next request refers to what they stored."""
    path = dict(target.fields)[b":path"]
    store = literal(b":path", path, store=True)
    head = [f for f in target.fields if f[0] != b":path"]
    whole = block(head[:2]) + store + block(head[2:])
    if where == "trailers":
        # A pseudo-header has no place in trailers, so this stores one that has; the path is stored by the head.
        store_other = literal(b"x-other", b"1", store=True)
        peer.send(headers(1, whole), data(1, target.content), headers(1, store_other, end=True))
        peer.expect_answer(1)
        peer.send(headers(3, stored(FIRST_DYNAMIC + 1, target)), data(3, target.content, end=True))
    else:
        if where == "malformed request":
            peer.send(headers(1, whole + literal(b"Upper", b"1"), end=True))
        elif where == "refused request":
            peer.send(headers(1, whole.replace(b"POST", b"PUTT"), end=True))
            peer.answer(1)
        else:
            peer.send(headers(1, whole), rst_stream(1))
        peer.send(headers(3, stored(FIRST_DYNAMIC, target)), data(3, target.content, end=True))
    peer.expect_answer(3)


@pytest.mark.parametrize("largest", [DEFAULT_FRAME_BYTES, 3 * DEFAULT_FRAME_BYTES, (1 << 24) - 1])
def test_4_2_our_frames_are_no_larger_than_the_client_takes(target: Target, largest: int) -> None:
    with target.peer((Setting.MAX_FRAME_SIZE, largest), (Setting.INITIAL_WINDOW_SIZE, TOP)) as peer:
        peer.send(target.large(1))
        answer = peer.expect_answer(1)
        assert len(answer.body) > 2 * DEFAULT_FRAME_BYTES
        assert max(len(f.payload) for f in peer.frames) <= largest


def test_flags_of_an_ack_are_what_they_are(peer: Peer) -> None:
    """No PING ACK has other flags: a client may compare the whole byte."""
    peer.send(ping(b"abcdefgh"))
    answer = peer.until(lambda f: f.type == Type.PING, "PING ACK")
    assert (answer.flags, answer.stream, answer.payload) == (ACK, 0, b"abcdefgh")
    assert not answer.flags & PADDED
