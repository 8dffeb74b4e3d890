"""HTTP/1.1 responses: bytes in, a response out. No I/O, so that the blocking client, the asyncio client and the load
generator share it. RFC 9112; what a response may be framed by: Content-Length, chunked, the end of the connection.

Own code rather than httpx or urllib3: the standard library has a parser for blocking sockets only, httpx costs about
a millisecond of CPU a request and five packages, and what is needed here fits on two screens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

MAX_HEAD_BYTES = 64 << 10
_MAX_CHUNK_LINE_BYTES = 1024


class ProtocolError(Exception):
    """What came is not HTTP, or larger than allowed (then `too_large` is set)."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


@dataclass(frozen=True)
class Head:
    status: int
    reason: str
    headers: dict[str, str]  # names in lower case; a repeated one joined by ", "
    content_length: int | None
    chunked: bool
    keep_alive: bool


@dataclass(frozen=True)
class HttpResponse:
    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> dict[str, str]:
        return self.head.headers


@lru_cache(
    maxsize=64
)  # a server's heads differ in little: under load the same few bytes come again and again
def parse_head(block: bytes) -> Head:
    """`block`: status line and fields without the empty line."""
    lines = block.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    code, _, reason = rest.partition(" ")
    if version not in {"HTTP/1.1", "HTTP/1.0"} or len(code) != 3 or not code.isdecimal():
        raise ProtocolError(f"the server does not speak HTTP/1.1: it sent {lines[0][:60]!r}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ProtocolError(f"bad header line {line[:60]!r}")
        name, value = name.lower(), value.strip()
        if name == "content-length" and headers.get(name, value) != value:
            raise ProtocolError("two different Content-Length headers")
        headers[name] = f"{headers[name]}, {value}" if name in headers and name != "content-length" else value
    length = headers.get("content-length")
    if length is not None and not (length.isascii() and length.isdecimal()):
        raise ProtocolError(f"bad Content-Length {length[:60]!r}")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (version == "HTTP/1.1" or "keep-alive" in connection)
    chunked = headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked"
    return Head(int(code), reason, headers, None if length is None else int(length), chunked, keep_alive)


class ResponseParser:
    """Feeds on what a connection delivers. One response at a time: after `take`, it is ready for the next."""

    def __init__(self, max_body_bytes: int, *, head_request: bool = False) -> None:
        self._max_body_bytes = max_body_bytes
        self._head_request = head_request
        self._buffer = bytearray()
        self._head: Head | None = None
        self._parts: list[bytes] = []  # of the body
        self._body_bytes = 0
        self._chunk_left: int | None = None  # None: a chunk-size line is next
        self._in_trailers = False
        self._done = False

    @property
    def started(self) -> bool:
        """Something of a response has arrived."""
        return self._head is not None or bool(self._buffer)

    def feed(self, data: bytes) -> bool:
        """True when a response is whole. Raises ProtocolError."""
        if self._buffer or self._head is None or not self._takes_whole(self._head, len(data)):
            self._buffer += data
        else:  # a piece of a large body: not copied through the buffer
            self._parts.append(data)
            self._body_bytes += len(data)
            self._done = self._body_bytes == self._head.content_length
            return self._done
        while not self._done:
            if self._head is None:
                if not self._take_head():
                    return False
            elif not self._take_body(self._head):
                return False
        return True

    def eof(self) -> bool:
        """The connection ended; True when that is what ends the response."""
        head = self._head
        if not self._done and head is not None and not head.chunked and head.content_length is None:
            self._done = True
        return self._done

    def take(self) -> HttpResponse:
        """The whole response; `feed` or `eof` said True."""
        assert self._done
        assert self._head is not None
        response = HttpResponse(
            self._head, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        )
        self._head, self._parts, self._body_bytes = None, [], 0
        self._chunk_left, self._in_trailers, self._done = None, False, False
        return response

    @property
    def reusable(self) -> bool:
        """Before `take`: whether the connection can carry another request."""
        head = self._head
        framed = head is not None and (
            head.chunked or head.content_length is not None or self._bodyless(head)
        )
        return self._done and framed and head is not None and head.keep_alive and not self._buffer

    def _bodyless(self, head: Head) -> bool:
        return self._head_request or head.status in {204, 304}

    def _takes_whole(self, head: Head, count: int) -> bool:
        return (
            not head.chunked
            and head.content_length is not None
            and self._body_bytes + count <= head.content_length
        )

    def _take_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):
            raise ProtocolError(f"headers of more than {MAX_HEAD_BYTES} bytes", too_large=True)
        if end < 0:
            return False
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if 100 <= head.status < 200:  # 100 Continue and its kind announce the response that follows
            return True
        self._head = head
        self._grow(head.content_length or 0, announced=True)
        self._done = self._bodyless(head) or (not head.chunked and head.content_length == 0)
        return True

    def _take_body(self, head: Head) -> bool:
        if head.chunked:
            return self._take_chunks()
        if head.content_length is None:
            self._grow(len(self._buffer))
            self._parts.append(bytes(self._buffer))
            self._buffer.clear()
            return False
        if not self._buffer:
            return False
        part = bytes(self._buffer[: head.content_length - self._body_bytes])
        del self._buffer[: len(part)]
        self._parts.append(part)
        self._body_bytes += len(part)
        self._done = self._body_bytes == head.content_length
        return self._done

    def _take_chunks(self) -> bool:
        while True:
            if self._chunk_left:
                if not self._buffer:
                    return False
                part = bytes(self._buffer[: self._chunk_left])
                del self._buffer[: len(part)]
                self._grow(len(part))
                self._parts.append(part)
                self._chunk_left -= len(part)
                continue
            line = self._take_line()
            if line is None:
                return False
            if self._in_trailers:
                if not line:
                    self._done = True
                    return True
            elif self._chunk_left == 0:  # the line end after a chunk
                if line:
                    raise ProtocolError("a chunk is longer than it says")
                self._chunk_left = None
            else:
                self._start_chunk(line)

    def _start_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise ProtocolError(f"bad chunk size {line[:40]!r}")
        size = int(digits, 16)
        self._in_trailers = size == 0
        self._chunk_left = size if size else None

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end > _MAX_CHUNK_LINE_BYTES or (end < 0 and len(self._buffer) > _MAX_CHUNK_LINE_BYTES):
            raise ProtocolError("a chunk header that does not end")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _grow(self, count: int, *, announced: bool = False) -> None:
        if not announced:
            self._body_bytes += count
        if (count if announced else self._body_bytes) > self._max_body_bytes:
            raise ProtocolError(f"a response of more than {self._max_body_bytes} bytes", too_large=True)
