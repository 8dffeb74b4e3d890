"""RFC 7541: header compression by hand. "A decoding error MUST be treated as a connection error of type COMPRESSION_ERROR"."""

from __future__ import annotations

from typing import Any

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from http2_expect import Cases, Expect, answered, connection_error, parametrized
from http2_frames import Code as Http2Code
from http2_frames import (
    Peer,
    Target,
    data,
    headers,
    indexed,
    integer,
    literal,
    string,
    table_size,
    without,
)

BROKEN = connection_error(Http2Code.COMPRESSION_ERROR)
STATIC = 61  # entries of the static table
ENTRY_OVERHEAD = 32
TABLE_BYTES = 4096  # of ours, by default


def huffman(text: bytes) -> bytes:
    encoded: bytes = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(text)
    return encoded


def either(one: Expect, other: Expect) -> Expect:
    """Zeros are a legal waste of bytes, and a decoder may limit how many it reads."""

    def check(peer: Peer) -> None:
        try:
            one(peer)
        except AssertionError:
            other(peer)

    return check


def with_block(tail: bytes, front: bytes = b"") -> Any:
    """A good request with these bytes around its block."""
    return lambda t: headers(1, front + t.head + tail) + data(1, t.content, end=True)


def named(index: int, value: bytes, first: int = 0x00, bits: int = 4) -> bytes:
    """A literal whose name is an entry of a table."""
    return integer(index, bits, first) + string(value)


INTEGERS: Cases = {
    # 15 does not fit the prefix of 4 bits: 0x0f and the rest, here 0 with zeros that say nothing. Index 15: accept-charset.
    "an index with zeros behind it": (
        with_block(b"\x0f\x80\x80\x00" + string(b"utf-8")),
        either(answered(), BROKEN),
    ),
    "an index of 2^32": (with_block(b"\xff\x81\xff\xff\xff\x0f"), BROKEN),
    "an index of 2^64": (with_block(b"\xff" + b"\xff" * 9 + b"\x01"), BROKEN),
    "an index without end": (with_block(b"\xff" * 64), BROKEN),
    "an index that is cut off": (with_block(b"\xff\xff"), BROKEN),
    "a length of 2^31": (with_block(b"\x00" + integer(1 << 31, 7)), BROKEN),
    "a length of 2^32 + 1": (with_block(b"\x00" + integer((1 << 32) + 1, 7) + b"a"), BROKEN),
    "a length of 2^64 + 1": (with_block(b"\x00" + integer((1 << 64) + 1, 7) + b"a"), BROKEN),
    "a length without end": (with_block(b"\x00\x7f" + b"\x80" * 64), BROKEN),
    "a length that is cut off": (with_block(b"\x00\x7f\x80"), BROKEN),
    "a table size of 2^32": (with_block(b"", integer(1 << 32, 5, 0x20)), BROKEN),
    "a table size without end": (with_block(b"", b"\x3f" + b"\xff" * 64), BROKEN),
}

STRINGS: Cases = {
    "longer than the block": (with_block(b"\x00\x05x-a"), BROKEN),
    "a name without a value": (with_block(b"\x00" + string(b"x-a")), BROKEN),
    "a literal without a name": (with_block(b"\x00"), BROKEN),
    "an empty value": (with_block(literal(b"x-a", b"")), answered()),
    "Huffman": (
        with_block(
            b"\x00" + string(huffman(b"x-name"), huffman=True) + string(huffman(b"a value"), huffman=True)
        ),
        answered(),
    ),
    "Huffman, every byte that a value may have": (
        with_block(
            b"\x00"
            + string(b"x-a")
            + string(huffman(b"a" + bytes([9, *range(32, 127), *range(128, 256)]) + b"z"), huffman=True)
        ),
        answered(),
    ),
    "Huffman, empty": (with_block(b"\x00" + string(b"x-a") + string(b"", huffman=True)), answered()),
    # Section 5.2: padding longer than 7 bits, padding that is not the start of EOS, EOS itself.
    "Huffman with 8 bits of padding": (
        with_block(b"\x00" + string(b"x-a") + string(huffman(b"aaaaa") + b"\xff", huffman=True)),
        BROKEN,
    ),
    "Huffman with padding of zeros": (  # '0' has the code 00000
        with_block(b"\x00" + string(b"x-a") + string(b"\x00", huffman=True)),
        BROKEN,
    ),
    "Huffman with EOS": (
        with_block(b"\x00" + string(b"x-a") + string(b"\xff\xff\xff\xff", huffman=True)),
        BROKEN,
    ),
    "Huffman with EOS within": (
        with_block(
            b"\x00" + string(b"x-a") + string(huffman(b"ab") + b"\xff\xff\xff\xfc" + b"\x1f", huffman=True)
        ),
        BROKEN,
    ),
    "Huffman in a name with EOS": (
        with_block(b"\x00" + string(b"\xff\xff\xff\xff", huffman=True) + string(b"1")),
        BROKEN,
    ),
}

INDICES: Cases = {
    "0": (with_block(indexed(0)), BROKEN),
    "the first of an empty dynamic table": (with_block(indexed(STATIC + 1)), BROKEN),
    "the first free one": (with_block(literal(b"x-a", b"1", store=True) + indexed(STATIC + 2)), BROKEN),
    "the newest": (with_block(literal(b"x-a", b"1", store=True) + indexed(STATIC + 1)), answered()),
    "the last of the static table": (with_block(named(STATIC, b"Basic eDp5")), answered()),
    "a name of an empty dynamic table": (with_block(named(STATIC + 1, b"1")), BROKEN),
    "a name of an empty dynamic table, stored": (with_block(named(STATIC + 1, b"1", 0x40, 6)), BROKEN),
    "a name of an empty dynamic table, never indexed": (with_block(named(STATIC + 1, b"1", 0x10)), BROKEN),
    "a name of the dynamic table": (
        with_block(literal(b"x-a", b"1", store=True) + named(STATIC + 1, b"2")),
        answered(),
    ),
    "never indexed": (with_block(b"\x10" + string(b"x-secret") + string(b"1")), answered()),
    "never indexed is not stored": (
        with_block(b"\x10" + string(b"x-secret") + string(b"1") + indexed(STATIC + 1)),
        BROKEN,
    ),
    "without indexing is not stored": (with_block(literal(b"x-a", b"1") + indexed(STATIC + 1)), BROKEN),
}


def entries(count: int, bytes_each: int) -> bytes:
    """Literals that fill the dynamic table with so many bytes each."""
    return b"".join(
        literal(b"x-%02d" % n, b"v" * (bytes_each - ENTRY_OVERHEAD - 4), store=True) for n in range(count)
    )


SIZES: Cases = {
    "0": (with_block(b"", table_size(0)), answered()),
    "the limit": (with_block(b"", table_size(TABLE_BYTES)), answered()),
    "the limit + 1": (with_block(b"", table_size(TABLE_BYTES + 1)), BROKEN),
    "0 and the limit": (with_block(b"", table_size(0) + table_size(TABLE_BYTES)), answered()),
    "behind a field": (with_block(table_size(100)), BROKEN),
    "between two fields": (with_block(table_size(0) + literal(b"x-a", b"1")), BROKEN),
    "0 keeps nothing": (
        with_block(literal(b"x-a", b"1", store=True) + indexed(STATIC + 1), table_size(0)),
        BROKEN,
    ),
    "one entry fits": (
        with_block(entries(1, 100) + indexed(STATIC + 1), table_size(100)),
        answered(),
    ),
    "one byte too few for the entry": (
        with_block(entries(1, 100) + indexed(STATIC + 1), table_size(99)),
        BROKEN,
    ),
    "the oldest goes first": (
        with_block(entries(3, 100) + indexed(STATIC + 1) + indexed(STATIC + 2), table_size(200)),
        answered(),
    ),
    "the oldest is gone": (with_block(entries(3, 100) + indexed(STATIC + 3), table_size(200)), BROKEN),
    "an entry larger than the table empties it": (
        with_block(
            entries(1, 50) + literal(b"x-large", b"v" * 200, store=True) + indexed(STATIC + 1),
            table_size(100),
        ),
        BROKEN,
    ),
    "an entry larger than the table is a field all the same": (
        with_block(literal(b"x-large", b"v" * 5000, store=True)),
        answered(),
    ),
}


@parametrized(INTEGERS)
def test_5_1_integers(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """ "Integer encodings that exceed implementation limits -- in value or octet length -- MUST be treated as decoding
    errors"."""
    peer.send(send(target))
    expect(peer)


@parametrized(STRINGS)
def test_5_2_strings(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


@parametrized(INDICES)
def test_6_1_and_6_2_indices(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    peer.send(send(target))
    expect(peer)


@parametrized(SIZES)
def test_4_and_6_3_table_size(peer: Peer, target: Target, send: Any, expect: Expect) -> None:
    """An update comes first in a block, does not exceed our SETTINGS_HEADER_TABLE_SIZE, and evicts."""
    peer.send(send(target))
    expect(peer)


@pytest.mark.parametrize("how", ["raw", "Huffman", "stored", "never indexed", "all static"])
def test_a_request_in_every_form(peer: Peer, target: Target, how: str) -> None:
    def encoded(name: bytes, value: bytes) -> bytes:
        if how == "Huffman":
            return b"\x00" + string(huffman(name), huffman=True) + string(huffman(value), huffman=True)
        if how == "never indexed":
            return b"\x10" + string(name) + string(value)
        return literal(name, value, store=how == "stored")

    fields = list(target.fields)
    front = b""
    if how == "all static":
        front = indexed(3) + indexed(6)  # :method POST, :scheme http
        fields = without(without(fields, b":method"), b":scheme")
        front += named(4, dict(fields)[b":path"]) + named(1, b"localhost")
        fields = without(without(fields, b":path"), b":authority")
    peer.send(headers(1, front + b"".join(encoded(*f) for f in fields)), data(1, target.content, end=True))
    peer.expect_answer(1)


def test_2_3_2_a_table_for_all_streams(peer: Peer, target: Target) -> None:
    """Every field of the second request is a reference into what the first has stored; 50 streams use it."""
    count = len(target.fields)
    peer.send(
        headers(1, b"".join(literal(*f, store=True) for f in target.fields)),
        data(1, target.content, end=True),
    )
    references = b"".join(indexed(STATIC + count - n) for n in range(count))
    for stream in range(3, 103, 2):
        peer.send(headers(stream, references), data(stream, target.content, end=True))
    answered(*range(1, 103, 2))(peer)


def test_2_2_a_table_for_each_connection(target: Target) -> None:
    """What one connection has stored is no entry of another."""
    with target.peer() as one, target.peer() as other:
        one.send(
            headers(1, target.head + literal(b"x-a", b"1", store=True)), data(1, target.content, end=True)
        )
        one.expect_answer(1)
        other.send(headers(1, target.head + indexed(STATIC + 1)))
        BROKEN(other)
        one.send(headers(3, target.head + indexed(STATIC + 1)), data(3, target.content, end=True))
        one.expect_answer(3)


def test_4_3_a_smaller_table_and_a_larger_one_again(peer: Peer, target: Target) -> None:
    """Entries do not come back with the room."""
    peer.send(headers(1, target.head + entries(2, 100)), data(1, target.content, end=True))
    peer.expect_answer(1)
    sizes = table_size(100) + table_size(TABLE_BYTES)
    peer.send(headers(3, sizes + target.head + indexed(STATIC + 1)), data(3, target.content, end=True))
    peer.expect_answer(3)
    peer.send(headers(5, target.head + indexed(STATIC + 2)))
    BROKEN(peer)


def test_a_full_table(peer: Peer, target: Target) -> None:
    """4,096 bytes of entries: the oldest is still there, and there is none before it. They come in several requests, because a
    header list has a limit of its own."""
    entry = literal(b"x", b"", store=True)  # 33 bytes each
    most = TABLE_BYTES // 33
    stream = 1
    for _ in range(most // 31):
        peer.send(headers(stream, target.head + entry * 31), data(stream, target.content, end=True))
        stream += 2
    left = most % 31
    peer.send(headers(stream, target.head + entry * left), data(stream, target.content, end=True))
    peer.send(
        headers(stream + 2, target.head + indexed(STATIC + most)), data(stream + 2, target.content, end=True)
    )
    peer.expect_answer(stream + 2)
    peer.send(headers(stream + 4, target.head + indexed(STATIC + most + 1)))
    BROKEN(peer)
