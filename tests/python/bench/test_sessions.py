"""The two sessions byte by byte; no socket."""

from __future__ import annotations

import struct

import pytest

from fastserve.bench.grpc_session import PREFACE, GrpcSession, frame, message_payload
from fastserve.bench.hpack import decode
from fastserve.bench.rest_session import RestSession
from fastserve.bench.session import Done, Payload

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
OK = b"\x88\x00\x0bgrpc-status\x010"
HEAD, TRAILERS = b"\x88", b"\x00\x0bgrpc-status\x010"
BUSY = b"\x88\x00\x0bgrpc-status\x0214\x00\x0cgrpc-message\x09not%20now"


def settings(**values: int) -> bytes:
    names = {"table": 1, "streams": 3, "window": 4, "frame": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names[k], v) for k, v in values.items()))


def opened(**values: int) -> GrpcSession:
    session = GrpcSession("http", [(":path", "/p")])
    assert session.room == 0, "not before the server's SETTINGS"
    session.feed(settings(**values))
    session.out.clear()
    return session


def sent(session: GrpcSession) -> list[tuple[int, int, int, bytes]]:
    """(type, flags, stream, payload) of what is to be written."""
    data, found = b"".join(session.out), []
    session.out.clear()
    while data:
        high, low, kind, flags, stream = struct.unpack_from(">HBBBI", data)
        length = high << 8 | low
        found.append((kind, flags, stream, data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def test_grpc_opens_with_its_limits() -> None:
    session = GrpcSession("http", [])
    assert session.out.pop(0) == PREFACE
    (settings_frame, window) = sent(session)
    assert dict(struct.iter_unpack(">HI", settings_frame[3])) == {1: 0, 2: 0, 4: (1 << 31) - 1}
    assert window == (WINDOW, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65_535))
    session.feed(settings())
    assert sent(session) == [(SETTINGS, 1, 0, b"")]


def test_grpc_requests_and_answers() -> None:
    session = opened()
    payload = message_payload(b"abc")
    assert payload.content == b"\0\0\0\0\3abc"
    session.send("a", payload)
    session.send("b", payload)
    frames = sent(session)
    assert [(f[0], f[1], f[2]) for f in frames] == [
        (HEADERS, 4, 1),
        (DATA, 1, 1),
        (HEADERS, 4, 3),
        (DATA, 1, 3),
    ]
    assert list(decode(frames[0][3])) == [(":method", "POST"), (":scheme", "http"), (":path", "/p")]
    assert frames[2][3] == frames[0][3][:2] + b"\xbe"
    assert frames[1][3] == payload.content
    assert (session.in_flight, session.oldest()) == (2, "a")
    reply = frame(HEADERS, 4, 3, HEAD) + frame(DATA, 0, 3, b"12345") + frame(HEADERS, 5, 3, TRAILERS)
    done = [d for at in range(len(reply)) for d in session.feed(reply[at : at + 1])]
    assert done == [Done("b", 0)]
    assert session.feed(frame(HEADERS, 5, 1, BUSY)) == [Done("a", 14, "not now")]
    assert session.in_flight == 0


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        (frame(HEADERS, 5, 1, OK), Done("a", 0)),
        (
            frame(HEADERS, 4 | 1 | 8 | 0x20, 1, b"\x02" + b"\0" * 5 + OK + b"\0\0"),
            Done("a", 0),
        ),  # padded, priority
        (frame(HEADERS, 1, 1, OK[:5]) + frame(CONTINUATION, 4, 1, OK[5:]), Done("a", 0)),
        (
            frame(HEADERS, 4, 1, b"\x8d") + frame(DATA, 1, 1, b"nothing"),
            Done("a", 5, "HTTP 404: not a gRPC server"),
        ),
        (
            frame(HEADERS, 4, 1, HEAD) + frame(DATA, 1, 1, b""),
            Done("a", 13, "the reply ended without a grpc-status"),
        ),
        (frame(RST, 0, 1, struct.pack(">I", 7)), Done("a", 14, "RST_STREAM with error 7")),
        (frame(RST, 0, 1, struct.pack(">I", 2)), Done("a", 13, "RST_STREAM with error 2")),
        (frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)), Done("a", 14, "GOAWAY before it was processed")),
        (b"", Done("a", 14, "the server closed the connection")),
        (
            frame(HEADERS, 1, 1, OK) + frame(PING, 0, 0, b"12345678"),
            Done("a", 14, "the server broke HTTP/2: a header block was not continued"),
        ),
        (
            frame(HEADERS, 5, 1, b"\xff\xff"),
            Done("a", 14, "the server broke HTTP/2: the block ends inside a field"),
        ),
        (
            frame(WINDOW, 0, 0, b"1"),
            Done("a", 14, "the server broke HTTP/2: unpack requires a buffer of 4 bytes"),
        ),
    ],
)
def test_ends_of_a_grpc_request(frames: bytes, wanted: Done) -> None:
    session = opened()
    session.send("a", message_payload(b""))
    assert session.feed(frames) == [wanted]
    assert session.in_flight == 0


def test_goaway_lets_the_earlier_ones_end() -> None:
    session = opened()
    session.send("a", message_payload(b""))
    session.send("b", message_payload(b""))
    assert session.feed(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0))) == [
        Done("b", 14, "GOAWAY before it was processed")
    ]
    assert (session.closing, session.room, session.in_flight) == (True, 0, 1)
    assert session.feed(frame(HEADERS, 5, 1, OK)) == [Done("a", 0)]


def test_a_ping_is_answered() -> None:
    session = opened()
    session.feed(frame(PING, 0, 0, b"12345678") + frame(PING, 1, 0, b"12345678"))
    assert sent(session) == [(PING, 1, 0, b"12345678")]


def test_the_servers_stream_limit() -> None:
    session = opened(streams=2)
    for tag, room in (("a", 1), ("b", 0)):
        session.send(tag, message_payload(b""))
        assert session.room == room
    session.feed(frame(HEADERS, 5, 1, OK))
    assert session.room == 1


def test_what_is_given_up_is_reset() -> None:
    session = opened()
    session.send("a", message_payload(b""))
    sent(session)
    session.cancel_oldest()
    assert sent(session) == [(RST, 0, 1, struct.pack(">I", 8))]
    assert session.oldest() is None
    assert session.feed(frame(HEADERS, 5, 1, OK)) == [], "too late"


def data_sizes(session: GrpcSession) -> list[tuple[int, int, bool]]:
    return [
        (stream, len(payload), bool(flags & 1))
        for kind, flags, stream, payload in sent(session)
        if kind == DATA
    ]


def test_large_messages_go_in_frames_within_the_windows() -> None:
    session = opened(frame=20_000)
    session.send("a", Payload(b"x" * 70_000))
    assert data_sizes(session) == [(1, 20_000, False)] * 3 + [(1, 5_535, False)]
    session.send("b", Payload(b"y" * 10))  # the connection's window is used up, and it has to wait its turn
    assert data_sizes(session) == []
    session.feed(frame(WINDOW, 0, 0, struct.pack(">I", 4_470)))
    assert data_sizes(session) == [(3, 10, True)], "stream 1 has a window of its own, and it is used up too"
    session.feed(frame(WINDOW, 0, 1, struct.pack(">I", 100_000)))
    assert data_sizes(session) == [(1, 4_460, False)]
    session.feed(frame(WINDOW, 0, 0, struct.pack(">I", 5)))
    assert data_sizes(session) == [(1, 5, True)]


def test_a_larger_initial_window_reaches_what_waits() -> None:
    session = opened(window=10)
    session.send("a", Payload(b"x" * 25))
    assert data_sizes(session) == [(1, 10, False)]
    session.feed(settings(window=20))
    assert data_sizes(session) == [(1, 10, False)]
    session.feed(frame(RST, 0, 1, struct.pack(">I", 7)))
    session.feed(settings(window=100))
    assert data_sizes(session) == [], "it was reset"


def test_the_receive_window_is_refilled() -> None:
    session = opened()
    session.send("a", message_payload(b""))
    sent(session)
    session._consumed = (1 << 29) - 4
    session.feed(frame(DATA, 0, 1, b"123"))
    assert sent(session) == []
    session.feed(frame(DATA, 0, 1, b"4"))
    assert sent(session) == [(WINDOW, 0, 0, struct.pack(">I", 1 << 29))]


# --- HTTP/1.1


def response(status: int, body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), extra, body)


def test_http_requests_and_answers() -> None:
    session = RestSession(1000)
    assert session.room == 1
    session.send("a", Payload(b"GET"))
    assert (session.out, session.room, session.in_flight, session.oldest()) == ([b"GET"], 0, 1, "a")
    assert session.feed(b"HTTP/1.1 200 ") == []
    assert session.feed(b"OK\r\nContent-Length: 2\r\n\r\nhi") == [Done("a", 0)]
    assert session.room == 1
    session.send("b", Payload(b"GET"))
    assert session.feed(response(503, b'{"error":"busy"}')) == [Done("b", 14, "busy")]
    assert session.room == 1


def test_http_connection_close() -> None:
    session = RestSession(1000)
    session.send("a", Payload(b""))
    assert session.feed(response(200, b"", b"Connection: close\r\n")) == [Done("a", 0)]
    assert (session.closing, session.room) == (True, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the server closed the connection"),
        (b"junk\r\n\r\n", "the server does not speak HTTP/1.1: it sent 'junk'"),
    ],
)
def test_http_breaks(data: bytes, message: str) -> None:
    session = RestSession(1000)
    session.send("a", Payload(b""))
    assert session.feed(data) == [Done("a", 14, message)]
    assert session.closing


def test_http_gives_up_by_closing() -> None:
    session = RestSession(1000)
    session.send("a", Payload(b""))
    session.cancel_oldest()
    assert (session.closing, session.in_flight, session.room) == (True, 0, 0)
    assert session.feed(response(200, b"")) == []
