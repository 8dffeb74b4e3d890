"""HPACK (RFC 7541) as far as a load generator needs it: encodes one request head per connection, decodes without a
dynamic table. Pure.

We announce a table of size 0, so every header block of the server stands for itself; under load the same few blocks come
again and again, and a decoded one is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

Headers = tuple[tuple[str, str], ...]

DEFAULT_TABLE_BYTES = 4096
_ENTRY_OVERHEAD_BYTES = 32

# Appendix A: "name" or "name value", index 1 to 61.
_STATIC = (
    ":authority;:method GET;:method POST;:path /;:path /index.html;:scheme http;:scheme https;:status 200;:status 204;"
    ":status 206;:status 304;:status 400;:status 404;:status 500;accept-charset;accept-encoding gzip, deflate;"
    "accept-language;accept-ranges;accept;access-control-allow-origin;age;allow;authorization;cache-control;"
    "content-disposition;content-encoding;content-language;content-length;content-location;content-range;content-type;"
    "cookie;date;etag;expect;expires;from;host;if-match;if-modified-since;if-none-match;if-range;if-unmodified-since;"
    "last-modified;link;location;max-forwards;proxy-authenticate;proxy-authorization;range;referer;refresh;retry-after;"
    "server;set-cookie;strict-transport-security;transfer-encoding;user-agent;vary;via;www-authenticate"
)
STATIC = tuple((name, value) for name, _, value in (entry.partition(" ") for entry in _STATIC.split(";")))
_NAME_INDEX = {name: at for at, (name, _) in reversed(list(enumerate(STATIC, 1)))}
_METHOD_POST, _SCHEME_HTTP, _SCHEME_HTTPS = 0x83, 0x86, 0x87

# Appendix B is a canonical code: the lengths of the 257 codes, one base-36 digit each, are the whole of it.
_CODE_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777777777"
    "77878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmo"
    "lmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)


class HpackError(Exception):
    """The server's header block is not HPACK, or uses the table that it was told not to."""


@cache
def _codes() -> dict[tuple[int, int], int]:
    """(length, code) -> symbol"""
    lengths = [int(digit, 36) for digit in _CODE_LENGTHS]
    table, code, previous = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths)):
        code <<= length - previous
        table[length, code] = symbol
        code, previous = code + 1, length
    return table


def _huffman(data: bytes) -> bytes:
    codes, out = _codes(), bytearray()
    code = length = 0
    for byte in data:
        for bit in range(7, -1, -1):
            code, length = code << 1 | (byte >> bit & 1), length + 1
            symbol = codes.get((length, code))
            if symbol is not None:
                if symbol == 256:
                    raise HpackError("end-of-string symbol inside a string")
                out.append(symbol)
                code = length = 0
            elif length > 30:
                raise HpackError("no such Huffman code")
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("bad padding of a Huffman string")
    return bytes(out)


def _integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """(value, where the next begins); 5.1"""
    limit = (1 << prefix_bits) - 1
    value = block[at] & limit
    at += 1
    if value < limit:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HpackError("integer too large")


def _string(block: bytes, at: int) -> tuple[str, int]:
    coded = block[at] & 0x80
    length, at = _integer(block, at, 7)
    if at + length > len(block):
        raise HpackError("string beyond the end of the block")
    data = block[at : at + length]
    return (_huffman(data) if coded else data).decode("latin-1"), at + length


@lru_cache(maxsize=256)
def decode(block: bytes) -> Headers:
    """Raises HpackError."""
    headers, at = [], 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                headers.append(_static(index))
            elif first & 0xE0 == 0x20:
                _, at = _integer(block, at, 5)  # table size update
            else:
                index, at = _integer(block, at, 6 if first & 0x40 else 4)
                if index:
                    name = _static(index)[0]
                else:
                    name, at = _string(block, at)
                value, at = _string(block, at)
                headers.append((name, value))
    except IndexError:
        raise HpackError("the block ends inside a field") from None
    return tuple(headers)


def _static(index: int) -> tuple[str, str]:
    if not 0 < index <= len(STATIC):
        raise HpackError(f"index {index} of a table that is empty")
    return STATIC[index - 1]


def _encoded_integer(value: int, prefix_bits: int, first: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    out, value = bytearray([first | limit]), value - limit
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def _literal(name: str, value: str, first: int, prefix_bits: int) -> bytes:
    index = _NAME_INDEX.get(name, 0)
    out = _encoded_integer(index, prefix_bits, first)
    for text in (() if index else (name,)) + (value,):
        data = text.encode("latin-1")
        out += _encoded_integer(len(data), 7, 0) + data
    return out


def request_blocks(scheme: str, fields: Sequence[tuple[str, str]], table_bytes: int) -> tuple[bytes, bytes]:
    """Header blocks of a POST: the connection's first one, and every later one. `fields` go into the peer's table of
    `table_bytes` once, so that later blocks are a byte a field; without room they are spelled out each time."""
    fixed = bytes([_METHOD_POST, _SCHEME_HTTPS if scheme == "https" else _SCHEME_HTTP])
    needed = sum(len(name) + len(value) + _ENTRY_OVERHEAD_BYTES for name, value in fields)
    if needed > min(table_bytes, DEFAULT_TABLE_BYTES):
        spelled = fixed + b"".join(_literal(name, value, 0x00, 4) for name, value in fields)
        size_update = b"\x20" if table_bytes < DEFAULT_TABLE_BYTES else b""  # 4.2: it has to be acknowledged
        return size_update + spelled, spelled
    size_update = b"" if table_bytes >= DEFAULT_TABLE_BYTES else _encoded_integer(table_bytes, 5, 0x20)
    first = size_update + fixed + b"".join(_literal(name, value, 0x40, 6) for name, value in fields)
    newest = len(STATIC) + 1
    later = fixed + b"".join(
        _encoded_integer(newest + len(fields) - 1 - at, 7, 0x80) for at in range(len(fields))
    )
    return first, later
