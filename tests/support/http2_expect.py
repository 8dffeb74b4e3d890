"""What a case expects of the server, as values for a table of cases: name -> (what is sent, what must come of it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from http2_frames import Peer, Target, Type

Send = Callable[[Target], bytes]
Expect = Callable[[Peer], object]
Cases = dict[str, tuple[Send, Expect]]


def parametrized(cases: Cases) -> Any:
    """`send` and `expect` of a test."""
    return pytest.mark.parametrize(
        ("send", "expect"), [pytest.param(*case, id=name) for name, case in cases.items()]
    )


def connection_error(*codes: int, reason: bytes = b"") -> Expect:
    return lambda peer: peer.expect_connection_error(*codes, reason=reason)


def stream_error(*codes: int, stream: int = 1) -> Expect:
    """RST_STREAM, and the connection goes on."""
    return lambda peer: peer.expect_stream_error(stream, *codes)


def either_error(*codes: int, stream: int = 1) -> Expect:
    """A stream error by the letter; libnghttp2 ends the connection, which RFC 9113 section 5.4.1 allows for any of them."""
    return lambda peer: peer.expect_error(stream, *codes)


def answered(*streams: int) -> Expect:
    """With success; 1 when none is named."""

    def check(peer: Peer) -> None:
        for stream in streams or (1,):
            peer.expect_answer(stream)

    return check


def answered_or(*codes: int) -> Expect:
    """Where RFC 9113 has no rule: stream 1 is answered, or the connection ends with one of these."""

    def check(peer: Peer) -> None:
        ended = peer.until(lambda f: f.type == Type.GOAWAY or (f.stream == 1 and Peer.ends(f)), "an answer")
        if ended.type == Type.GOAWAY:
            peer.expect_connection_error(*codes)
        else:
            peer.expect_answer(1)

    return check


def ignored(peer: Peer) -> None:
    peer.expect_nothing()
