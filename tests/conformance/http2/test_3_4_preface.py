"""RFC 9113 section 3.4: what a connection begins with."""

from __future__ import annotations

import time
from typing import Any

import pytest
from http2_expect import Cases, answered, connection_error, parametrized
from http2_frames import (
    ACK,
    PREFACE,
    Code,
    Frame,
    Peer,
    Target,
    Type,
    data,
    goaway,
    ping,
    settings,
    window_update,
)

HELLO = PREFACE + settings()


def is_settings_ack(frame: Frame) -> bool:
    return frame.type == Type.SETTINGS and bool(frame.flags & ACK)


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        PREFACE[:-1] + b"X",
        b"PRI * HTTP/2.0\r\n\r\nsm\r\n\r\n" + settings(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # a TLS ClientHello
        bytes(24),
        b"\xff" * 4096,
        settings(),
    ],
    ids=["HTTP 1.1", "last byte", "lower case", "TLS", "zeros", "noise", "SETTINGS alone"],
)
def test_anything_else_ends_a_grpc_connection(server: Any, noise: bytes) -> None:
    """GOAWAY PROTOCOL_ERROR; it MAY be left out, "since an invalid preface indicates that the peer is not using HTTP/2"."""
    with Peer(server.grpc, None) as peer:
        peer.send(noise)
        peer.expect_end()
        assert all(f.code == Code.PROTOCOL_ERROR for f in peer.frames if f.type == Type.GOAWAY), peer.story()


@pytest.mark.parametrize("noise", [PREFACE[:-1] + b"X", PREFACE[:18] + b"\r\n" + settings()])
def test_anything_else_is_http1_on_the_http_port(server: Any, noise: bytes) -> None:
    with Peer(server.http, None) as peer:
        peer.send(noise)
        answer = b""
        while piece := peer.socket.recv(4096):
            answer += piece
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")), answer


FIRST_FRAMES: Cases = {
    "PING": (lambda _: ping(), connection_error(Code.PROTOCOL_ERROR)),
    "WINDOW_UPDATE": (lambda _: window_update(0, 1), connection_error(Code.PROTOCOL_ERROR)),
    "GOAWAY": (lambda _: goaway(), connection_error(Code.PROTOCOL_ERROR)),
    "DATA": (lambda _: data(1, b"x"), connection_error(Code.PROTOCOL_ERROR)),
    "a request": (lambda target: target.request(1), connection_error(Code.PROTOCOL_ERROR)),
    "SETTINGS with ACK": (lambda _: settings(ack=True), connection_error(Code.PROTOCOL_ERROR)),
    "an unknown frame": (lambda _: b"\0\0\0\x40\0\0\0\0\0", connection_error(Code.PROTOCOL_ERROR)),
    "SETTINGS and a request": (lambda target: settings() + target.request(1), answered(1)),
    "two SETTINGS": (lambda target: settings() * 2 + target.request(1), answered(1)),
}


@parametrized(FIRST_FRAMES)
def test_the_first_frame(target: Target, send: Any, expect: Any) -> None:
    """ "This sequence MUST be followed by a SETTINGS frame"."""
    with Peer(target.address, None) as peer:
        peer.send(PREFACE, send(target))
        expect(peer)


def test_the_server_begins_with_settings(target: Target, peer: Peer) -> None:
    assert peer.frames[0].type == Type.SETTINGS
    assert not peer.frames[0].flags & ACK
    peer.until(is_settings_ack, "ACK of our SETTINGS")


def test_a_grpc_server_does_not_wait_for_the_client(server: Any) -> None:
    """ "The server connection preface ... MUST be the first frame the server sends": at once, clients may wait for it."""
    with Peer(server.grpc, None) as peer:
        assert peer.read()
        assert peer.frames[0].type == Type.SETTINGS


def test_a_connection_in_single_bytes(target: Target) -> None:
    with Peer(target.address, None) as peer:
        for byte in HELLO + target.request(1):
            peer.send(bytes([byte]))
        peer.expect_answer(1)


@pytest.mark.parametrize("cut", [1, 16, 23, 24, 28, 33])
def test_a_preface_in_two_pieces(target: Target, cut: int) -> None:
    with Peer(target.address, None) as peer:
        peer.send(HELLO[:cut])
        time.sleep(0.01)  # else the kernel may put both into one read
        peer.send(HELLO[cut:] + target.request(1))
        peer.expect_answer(1)


@pytest.mark.parametrize("cut", [0, 10, 24, 30])
def test_a_client_that_leaves_within_its_preface(target: Target, cut: int) -> None:
    with Peer(target.address, None) as peer:
        peer.send(HELLO[:cut])


def test_a_second_preface_is_a_frame(target: Target, peer: Peer) -> None:
    """`PRI` as a length: 5.26 million bytes."""
    peer.send(PREFACE)
    peer.expect_connection_error(Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR)


def test_upgrade_is_not_taken(server: Any) -> None:
    """Section 3.1: the way from HTTP/1.1 by Upgrade is gone; a server ignores the header."""
    with Peer(server.http, None) as peer:
        peer.send(
            b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings, close\r\n"
            b"upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert peer.socket.recv(4096).startswith(b"HTTP/1.1 200 ")
