"""Against the examples of RFC 7541, appendix C, and our own encoder."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.bench.hpack import STATIC, HpackError, decode, request_blocks

FIELDS = [
    (":path", "/a.B/C"),
    (":authority", "h:1"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [("custom-key", "custom-header")]),  # C.2.1
        ("040c2f73616d706c652f70617468", [(":path", "/sample/path")]),  # C.2.2
        ("100870617373776f726406736563726574", [("password", "secret")]),  # C.2.3
        ("82", [(":method", "GET")]),  # C.2.4
        (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",  # C.4.1
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
        ),
        (
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            [
                (":status", "302"),
                ("cache-control", "private"),
                ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
                ("location", "https://www.example.com"),
            ],
        ),  # C.6.1
        ("2088", [(":status", "200")]),  # a table size update in front
    ],
)
def test_the_examples_of_the_standard(block: str, headers: list[tuple[str, str]]) -> None:
    assert list(decode(bytes.fromhex(block))) == headers


@pytest.mark.parametrize(
    "block",
    ["80", "be", "ff", "40", "400a63", "0085ffffffff", "ffffffffffff7f", "0001618100", "000161817f80"],
)
def test_what_is_not_hpack(block: str) -> None:
    with pytest.raises(HpackError):
        decode(bytes.fromhex(block))


@given(st.binary(max_size=60))
def test_any_bytes(block: bytes) -> None:
    with contextlib.suppress(HpackError):
        decode(block)


def test_the_static_table() -> None:
    assert len(STATIC) == 61
    assert (STATIC[0], STATIC[7], STATIC[15], STATIC[60]) == (
        (":authority", ""),
        (":status", "200"),
        ("accept-encoding", "gzip, deflate"),
        ("www-authenticate", ""),
    )


@pytest.mark.parametrize(("scheme", "index"), [("http", "http"), ("https", "https")])
def test_the_first_head_spells_the_fields(scheme: str, index: str) -> None:
    first, later = request_blocks(scheme, FIELDS, 4096)
    assert list(decode(first)) == [(":method", "POST"), (":scheme", index), *FIELDS]
    assert later == first[:2] + bytes([0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62])  # the newest has index 62


@pytest.mark.parametrize(
    ("table", "indexed"), [(0, False), (190, False), (191, False), (192, True), (4096, True), (9999, True)]
)
def test_a_peers_small_table(table: int, indexed: bool) -> None:
    fields = [("a", "b" * 31)] * 3  # 64 bytes each in a table
    first, later = request_blocks("http", fields, table)
    assert list(decode(first))[2:] == fields
    assert (len(later) == 5) is indexed
    if table < 4096:
        assert first[0] & 0xE0 == 0x20, "a smaller table has to be acknowledged first"
        size = 0 if not indexed else table
        assert first.startswith(b"\x20" if not size else bytes([0x3F, (size - 31) & 0x7F | 0x80]))
