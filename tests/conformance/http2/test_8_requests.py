"""RFC 9113 section 8: requests as header lists, and what makes one malformed.

"Malformed requests or responses that are detected MUST be treated as a stream error of type PROTOCOL_ERROR": RST_STREAM, and
the connection goes on. Where the fault shows before the body, the server may answer 400 instead.
"""

from __future__ import annotations

from typing import Any

import pytest
from http2_expect import Cases, Expect, answered, either_error, ignored, parametrized, stream_error
from http2_frames import (
    Code,
    Fields,
    Peer,
    Target,
    Type,
    block,
    data,
    headers,
    replaced,
    without,
)

MALFORMED = stream_error(Code.PROTOCOL_ERROR)


def with_fields(*extra: tuple[bytes, bytes]) -> Any:
    return lambda t: t.request(1, [*t.fields, *extra])


def refused(*statuses: int, grpc: int | None = None) -> Expect:
    """A reset, or an answer with one of these HTTP statuses (over gRPC: 200 with this grpc-status)."""

    def check(peer: Peer) -> None:
        ended = peer.until(
            lambda f: f.stream == 1 and (f.type == Type.RST_STREAM or Peer.ends(f)), "reset or answer"
        )
        if ended.type == Type.RST_STREAM and not any(f.type == Type.HEADERS for f in peer.frames):
            assert ended.code == Code.PROTOCOL_ERROR
            return
        answer = peer.answer(1)
        status = {**answer.headers, **answer.trailers}.get("grpc-status")
        assert answer.status in statuses or (grpc is not None and status == str(grpc)), answer

    return check


# --- 8.1 the frames of a request

MESSAGES: Cases = {
    "trailers": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b"x-check", b"1")]), end=True),
        answered(),
    ),
    "trailers without END_STREAM": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b"x-check", b"1")])),
        MALFORMED,
    ),
    "trailers with a pseudo-header": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b":method", b"GET")]), end=True),
        MALFORMED,
    ),
    "trailers with :status": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b":status", b"200")]), end=True),
        MALFORMED,
    ),
    "trailers with a field of the connection": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b"connection", b"close")]), end=True),
        MALFORMED,
    ),
    "trailers in upper case": (
        lambda t: t.open(1) + data(1, t.content) + headers(1, block([(b"X-Check", b"1")]), end=True),
        MALFORMED,
    ),
    "empty trailers": (lambda t: t.open(1) + data(1, t.content) + headers(1, b"", end=True), answered()),
    "DATA after trailers": (
        lambda t: (
            t.open(1) + data(1, t.content) + headers(1, block([(b"x-check", b"1")]), end=True) + data(1, b"x")
        ),
        either_error(Code.STREAM_CLOSED),
    ),
    "a second head": (lambda t: t.open(1) + t.open(1), MALFORMED),
}


@parametrized(MESSAGES)
def test_8_1_message_framing(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


# --- 8.1.1 content-length


def with_length(extra: int) -> Any:
    return lambda t: t.request(1, [*t.fields, (b"content-length", b"%d" % (len(t.content) + extra))])


LENGTHS: Cases = {
    "right": (with_length(0), answered()),
    "one too few": (with_length(-1), MALFORMED),
    "one too many": (with_length(1), MALFORMED),
    "many too many": (with_length(10_000), MALFORMED),
    "0 with a body": (with_fields((b"content-length", b"0")), MALFORMED),
    "some without a body": (
        lambda t: headers(1, block([*t.fields, (b"content-length", b"5")]), end=True),
        MALFORMED,
    ),
    "some and an empty DATA": (
        lambda t: headers(1, block([*t.fields, (b"content-length", b"5")])) + data(1, end=True),
        MALFORMED,
    ),
    "negative": (with_fields((b"content-length", b"-1")), MALFORMED),
    "a word": (with_fields((b"content-length", b"many")), MALFORMED),
    "empty": (with_fields((b"content-length", b"")), MALFORMED),
    "with a sign": (with_fields((b"content-length", b"+70")), MALFORMED),
    "hexadecimal": (with_fields((b"content-length", b"0x46")), MALFORMED),
    "beyond 64 bits": (with_fields((b"content-length", b"18446744073709551617")), MALFORMED),
    "twice, the same": (
        lambda t: t.request(1, [*t.fields, *[(b"content-length", b"%d" % len(t.content))] * 2]),
        MALFORMED,
    ),
    "twice, different": (
        lambda t: t.request(
            1, [*t.fields, (b"content-length", b"%d" % len(t.content)), (b"content-length", b"1")]
        ),
        MALFORMED,
    ),
    "right over several frames with padding": (
        lambda t: (
            headers(1, block([*t.fields, (b"content-length", b"%d" % len(t.content))]))
            + data(1, t.content[:9], padding=100)
            + data(1, t.content[9:])
            + data(1, padding=3, end=True)
        ),
        answered(),
    ),
    "too few over several frames": (
        lambda t: (
            headers(1, block([*t.fields, (b"content-length", b"%d" % len(t.content))]))
            + data(1, t.content)
            + data(1, b"x", end=True)
        ),
        MALFORMED,
    ),
    "right, with trailers": (
        lambda t: (
            headers(1, block([*t.fields, (b"content-length", b"%d" % len(t.content))]))
            + data(1, t.content)
            + headers(1, block([(b"x-check", b"1")]), end=True)
        ),
        answered(),
    ),
    "too many, with trailers": (
        lambda t: (
            headers(1, block([*t.fields, (b"content-length", b"%d" % (len(t.content) + 1))]))
            + data(1, t.content)
            + headers(1, block([(b"x-check", b"1")]), end=True)
        ),
        MALFORMED,
    ),
}


@parametrized(LENGTHS)
def test_8_1_1_content_length(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """ "A request or response is also malformed if the value of a content-length header field does not equal the sum of the
    DATA frame payload lengths"."""
    peer.send(send(target))
    expect(peer)


def test_8_1_1_a_malformed_request_is_not_executed(server: Any, peer: Peer, target: Target) -> None:
    """The length turns out to be wrong with the last frame: no model has run by then."""

    def successes() -> float:
        found = server.scrape()
        return float(sum(v for k, v in found.items() if k.startswith("nv_inference_request_success{")))

    before = successes()
    peer.send(with_length(1)(target))
    MALFORMED(peer)
    assert successes() == before


def test_8_1_1_other_streams_go_on(peer: Peer, target: Target) -> None:
    bad = headers(3, block([*target.fields, (b"Upper", b"x")]), end=True)
    peer.send(target.slow(1), bad, target.request(5))
    peer.expect_answer(5)
    peer.expect_answer(1)
    assert any(f.type == Type.RST_STREAM and f.stream == 3 for f in peer.frames)


# --- 8.2 fields

NAMES: dict[str, bytes] = {
    "upper case": b"X-Upper",
    "one letter of upper case": b"x-uppeR",
    "empty": b"",
    "a blank": b"x name",
    "a blank at the end": b"x-name ",
    "a tab": b"x\tname",
    "NUL": b"x\0name",
    "CR": b"x\rname",
    "LF": b"x\nname",
    "DEL": b"x\x7fname",
    "beyond ASCII": b"x-n\xc3\xa4me",
    "a colon within": b"x:name",
    "a colon at the end": b"name:",
    "a bracket": b"x(name)",
    "a quote": b'x"name"',
    "a slash": b"x/name",
    "an at": b"x@name",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_8_2_1_names(peer: Peer, target: Target, name: bytes) -> None:
    peer.send(target.request(1, [*target.fields, (name, b"v")]))
    MALFORMED(peer)


VALUES: dict[str, bytes] = {
    "NUL": b"a\0b",
    "CR": b"a\rb",
    "LF": b"a\nb",
    "CR LF": b"a\r\nx-more: b",
    "a blank in front": b" a",
    "a blank at the end": b"a ",
    "a tab in front": b"\ta",
    "a tab at the end": b"a\t",
    "DEL": b"a\x7fb",
    "a control character": b"a\x01b",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_8_2_1_values(peer: Peer, target: Target, value: bytes) -> None:
    """NUL, CR, LF and blanks at the ends by RFC 9113; the other control characters are no field content in RFC 9110."""
    peer.send(target.request(1, [*target.fields, (b"x-value", value)]))
    MALFORMED(peer)


GOOD_FIELDS: dict[str, Fields] = {
    "empty value": [(b"x-empty", b"")],
    "bytes beyond ASCII": [(b"x-bytes", b"gr\xc3\xbc\xc3\x9fe \xff\x80")],
    "a blank and a tab within": [(b"x-blank", b"a b\tc")],
    "every sign that a name may have": [(b"!#$%&'*+-.^_`|~0z", b"1")],
    "the same name again": [(b"x-twice", b"1"), (b"x-twice", b"2")],
    "cookies in crumbs": [(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"cookie", b"e=f")],
    "a name of 300 characters": [(b"x" * 300, b"1")],
    "a value of 8,000 characters": [(b"x-long", b"v" * 8000)],
    "gRPC metadata in base64": [(b"x-data-bin", b"AAECAwQFBgc")],
    "priority (RFC 9218)": [(b"priority", b"u=0, i")],
    "host as :authority": [(b"host", b"localhost")],
    "te: trailers": [(b"te", b"trailers")],
}


@pytest.mark.parametrize("extra", GOOD_FIELDS.values(), ids=GOOD_FIELDS)
def test_8_2_fields_that_are_right(peer: Peer, target: Target, extra: Fields) -> None:
    names = {name for name, _ in extra}
    peer.send(target.request(1, [*(f for f in target.fields if f[0] not in names), *extra]))
    peer.expect_answer(1)


CONNECTION_FIELDS: dict[str, tuple[bytes, bytes]] = {
    "connection": (b"connection", b"keep-alive"),
    "connection: close": (b"connection", b"close"),
    "keep-alive": (b"keep-alive", b"timeout=5"),
    "proxy-connection": (b"proxy-connection", b"keep-alive"),
    "transfer-encoding": (b"transfer-encoding", b"chunked"),
    "transfer-encoding: identity": (b"transfer-encoding", b"identity"),
    "upgrade": (b"upgrade", b"websocket"),
    "te: gzip": (b"te", b"gzip"),
    "te: trailers, deflate": (b"te", b"trailers, deflate"),
    "te empty": (b"te", b""),
}


@pytest.mark.parametrize("extra", CONNECTION_FIELDS.values(), ids=CONNECTION_FIELDS)
def test_8_2_2_fields_of_the_connection(peer: Peer, target: Target, extra: tuple[bytes, bytes]) -> None:
    peer.send(target.request(1, [*without(target.fields, extra[0]), extra]))
    MALFORMED(peer)


# --- 8.3 pseudo-header fields


def first(*fields: tuple[bytes, bytes]) -> Any:
    """In front of the others."""
    return lambda t: t.request(1, [*fields, *t.fields])


def lacking(name: bytes) -> Any:
    return lambda t: t.request(1, without(t.fields, name))


def changed(name: bytes, value: bytes) -> Any:
    return lambda t: t.request(1, replaced(t.fields, name, value))


PSEUDO: Cases = {
    "unknown": (first((b":test", b"1")), MALFORMED),
    "unknown, empty name": (first((b":", b"1")), MALFORMED),
    ":status": (first((b":status", b"200")), MALFORMED),
    "in upper case": (first((b":Method", b"POST")), MALFORMED),
    "behind a field": (
        lambda t: t.request(1, [*t.fields[1:], t.fields[0]]),
        MALFORMED,
    ),
    ":path behind a field": (
        lambda t: t.request(
            1, [*without(t.fields, b":path"), (b"x-a", b"b"), (b":path", dict(t.fields)[b":path"])]
        ),
        MALFORMED,
    ),
    ":authority behind a field": (
        lambda t: t.request(1, [*without(t.fields, b":authority"), (b":authority", b"localhost")]),
        MALFORMED,
    ),
    ":method twice": (first((b":method", b"POST")), MALFORMED),
    ":scheme twice": (first((b":scheme", b"http")), MALFORMED),
    ":path twice": (first((b":path", b"/v2")), MALFORMED),
    ":authority twice": (first((b":authority", b"localhost")), MALFORMED),
    "no :method": (lacking(b":method"), MALFORMED),
    "no :scheme": (lacking(b":scheme"), MALFORMED),
    "no :path": (lacking(b":path"), MALFORMED),
    "no :authority": (lacking(b":authority"), refused(400, 200, grpc=0)),
    "none at all": (
        lambda t: headers(1, block([(b"x-a", b"b")]), end=True),
        MALFORMED,
    ),
    "empty :method": (changed(b":method", b""), refused(400, 405, 501)),
    "empty :path": (changed(b":path", b""), refused(400, grpc=12)),
    ":path without a slash": (changed(b":path", b"v2"), refused(400, grpc=12)),
    ":path with a blank": (changed(b":path", b"/v2/a b"), refused(400, 404, grpc=12)),
    ":path with NUL": (changed(b":path", b"/v2\0"), MALFORMED),
    ":path with LF": (changed(b":path", b"/v2\n"), MALFORMED),
    ":path *": (changed(b":path", b"*"), refused(400, grpc=12)),
    ":method with a blank": (changed(b":method", b"PO ST"), refused(400, 405, 501)),
    ":method in lower case": (changed(b":method", b"post"), refused(400, 405, 501)),
    ":scheme with a blank": (changed(b":scheme", b"ht tp"), MALFORMED),
    ":scheme https over plain TCP": (changed(b":scheme", b"https"), answered()),
    ":authority with a blank": (changed(b":authority", b"local host"), MALFORMED),
    ":authority with LF": (changed(b":authority", b"a\nb"), MALFORMED),
    "host twice": (with_fields((b"host", b"localhost"), (b"host", b"localhost")), MALFORMED),
    ":authority missing, host there": (
        lambda t: t.request(1, [*without(t.fields, b":authority"), (b"host", b"localhost")]),
        answered(),
    ),
    "CONNECT with :path": (changed(b":method", b"CONNECT"), MALFORMED),
    "CONNECT": (
        lambda t: headers(1, block([(b":method", b"CONNECT"), (b":authority", b"x:80")])),
        refused(405, 501),
    ),
    ":protocol without SETTINGS_ENABLE_CONNECT_PROTOCOL": (first((b":protocol", b"websocket")), MALFORMED),
}


@parametrized(PSEUDO)
def test_8_3_pseudo_headers(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


# --- answers


def test_8_3_2_an_answer_has_its_status_first(peer: Peer, target: Target) -> None:
    peer.send(target.request(1))
    answer = peer.expect_answer(1)
    assert next(iter(answer.headers)) == ":status"
    assert all(name == name.lower() for name in {**answer.headers, **answer.trailers})
    assert not {"connection", "transfer-encoding", "keep-alive", "upgrade"} & set(answer.headers)
    assert not any(name.startswith(":") for name in answer.trailers)


def test_8_1_an_answer_before_the_request_is_complete(peer: Peer, target: Target) -> None:
    """ "A server MAY request that the client abort transmission of a request without error by sending a RST_STREAM with an
    error code of NO_ERROR after sending a complete response"; the answer is not lost."""
    wrong = [*replaced(target.fields, b"content-type", b"text/plain"), (b"content-encoding", b"br")]
    peer.send(headers(1, block(wrong)))
    assert peer.answer(1).status == 415
    reset = peer.until(lambda f: f.type == Type.RST_STREAM, "RST_STREAM")
    assert (reset.stream, reset.code) == (1, Code.NO_ERROR)
    peer.send(data(1, b"still under way"), target.request(3))
    peer.expect_answer(3)


def test_8_1_methods_without_a_body(server: Any, target: Target) -> None:
    fields = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/v2/health/live"),
        (b":authority", b"x"),
    ]
    with target.peer() as peer:
        peer.send(headers(1, block(fields), end=True), headers(3, block(fields)), data(3, end=True))
        peer.send(headers(5, block(replaced(fields, b":method", b"HEAD")), end=True))
        statuses = [peer.answer(stream).status for stream in (1, 3, 5)]
        assert statuses == ([405] * 3 if target.name == "grpc" else [200] * 3)
        assert peer.answer(5).body == b""


def test_8_4_nothing_is_pushed(peer: Peer, target: Target) -> None:
    peer.send(target.request(1), target.request(3))
    answered(1, 3)(peer)
    ignored(peer)
    assert not any(f.type == Type.PUSH_PROMISE for f in peer.frames)
    assert all(f.stream % 2 for f in peer.frames if f.stream)
