from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.client.http11 import MAX_HEAD_BYTES, HttpResponse, ProtocolError, ResponseParser

LIMIT = 100


def parsed(data: bytes, *, eof: bool = False, limit: int = LIMIT, step: int = 0) -> tuple[HttpResponse, bool]:
    """The response, and whether the connection can be used again. `step`: bytes fed at a time, 0 = all."""
    parser = ResponseParser(limit)
    done = False
    for at in range(0, len(data), step or len(data)):
        done = parser.feed(data[at : at + (step or len(data))])
    assert done is not eof
    assert not eof or parser.eof()
    reusable = parser.reusable
    return parser.take(), reusable


GOOD = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", 200, b"hello", True),
    "empty": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "no reason": (b"HTTP/1.1 404 \r\ncontent-length: 1\r\n\r\nx", 404, b"x", True),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 200, b"x", False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x", False),
    "1.0 keep": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", 200, b"x", True),
    "continue": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
        200,
        b"ab",
        True,
    ),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\nT: v\r\n\r\n",
        200,
        b"wikipedia",
        True,
    ),
    "chunked, nothing": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        200,
        b"",
        True,
    ),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_responses_in_pieces(name: str, step: int) -> None:
    data, status, body, reusable = GOOD[name]
    response, again = parsed(data, step=step)
    assert (response.status, response.body, again) == (status, body, reusable)


def test_headers() -> None:
    response, _ = parsed(b"HTTP/1.1 200 Fine\r\nA: 1\r\na:2 \r\nContent-Length: 0\r\n\r\n")
    assert response.headers == {"a": "1, 2", "content-length": "0"}
    assert response.head.reason == "Fine"


def test_the_end_of_the_connection_ends_a_body_without_length() -> None:
    response, again = parsed(b"HTTP/1.1 200 OK\r\n\r\nall of it", eof=True)
    assert (response.body, again) == (b"all of it", False)


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_cut_response_is_none(cut: int) -> None:
    parser = ResponseParser(LIMIT)
    assert not parser.feed(GOOD["length"][0][:cut])
    assert not parser.eof()


def test_one_after_the_other() -> None:
    parser = ResponseParser(LIMIT)
    for name in ("length", "chunked", "empty", "length"):
        data, status, body, _ = GOOD[name]
        assert parser.feed(data)
        taken = parser.take()
        assert (taken.status, taken.body) == (status, body)


def test_more_than_a_response_makes_the_connection_useless() -> None:
    assert parsed(GOOD["length"][0] + b"HTTP")[1] is False


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_what_is_not_http(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        ResponseParser(LIMIT).feed(data)
    assert not caught.value.too_large


def test_limit_of_the_body() -> None:
    for size in (LIMIT - 1, LIMIT):
        assert (
            len(parsed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)[0].body) == size
        )
    with pytest.raises(ProtocolError, match="more than 100 bytes") as caught:
        ResponseParser(LIMIT).feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
    assert caught.value.too_large
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"32\r\n%s\r\n" % (b"x" * 50) * 2
    assert len(parsed(chunked + b"0\r\n\r\n")[0].body) == LIMIT
    with pytest.raises(ProtocolError):
        ResponseParser(LIMIT).feed(chunked + b"1\r\nx\r\n")
    parser = ResponseParser(LIMIT)
    parser.feed(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * LIMIT)
    with pytest.raises(ProtocolError):
        parser.feed(b"x")


def test_limit_of_the_head() -> None:
    def head(size: int) -> bytes:
        start = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx: "
        return start + b"a" * (size - len(start)) + b"\r\n\r\n"

    for size in (MAX_HEAD_BYTES - 1, MAX_HEAD_BYTES):
        assert parsed(head(size), step=5000)[0].status == 200
    with pytest.raises(ProtocolError):
        ResponseParser(LIMIT).feed(head(MAX_HEAD_BYTES + 1))


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
def test_any_bytes_any_pieces(data: bytes, pieces: list[int]) -> None:
    """Either a response or ProtocolError, never anything else; and pieces do not change which."""

    def outcome(parts: list[bytes]) -> object:
        parser = ResponseParser(LIMIT)
        try:
            for part in parts:
                if parser.feed(part):
                    return parser.take()
        except ProtocolError:
            return "error"
        return "more"

    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    parts, at = [], 0
    for size in pieces:
        parts.append(data[at : at + size])
        at += size
    parts.append(data[at:])
    whole, cut = outcome([data]), outcome([part for part in parts if part])
    assert type(whole) is type(cut)
