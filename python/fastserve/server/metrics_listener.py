"""The metrics port: GET /metrics, and 404 for everything else. One request per connection, on the loop's
thread.

Not on the REST port, so that a firewall can tell the two apart, and not through IoLoop, whose HTTP port
serves inference.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterable

log = logging.getLogger("fastserve.metrics")

MAX_HEAD_BYTES = 8 << 10  # a scraper's request line and headers; more is refused
HEAD_TIMEOUT_S = 10.0

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
}


class MetricsListener:
    def __init__(self, scrape: Callable[[], Iterable[bytes]], content_type: str) -> None:
        """`scrape`: makes the text piece by piece; between the pieces the loop does other things."""
        self._scrape = scrape
        self._content_type = content_type
        self._servers: list[asyncio.Server] = []

    async def start(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._serve, sock=sock, limit=MAX_HEAD_BYTES))

    async def close(self) -> None:
        for server in self._servers:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.LimitOverrunError:
                    head = b""
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass  # the scraper went away or says nothing
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        line = head.partition(b"\r\n")[0].split(b" ")
        if len(line) != 3 or not line[2].startswith(b"HTTP/1."):
            return _error(400, "Bad Request")
        method, path = line[0], line[1].partition(b"?")[0]
        if path != b"/metrics":
            return _error(404, "Not Found")
        if method not in (b"GET", b"HEAD"):
            return _error(405, "use GET", "allow: GET, HEAD\r\n")
        try:
            body = await self._text()
        except Exception:
            log.exception("scrape failed")
            return _error(500, "internal error; the server's log says why")
        return _response(200, self._content_type, body, with_body=method == b"GET")

    async def _text(self) -> bytes:
        made = []
        for piece in self._scrape():
            made.append(piece)
            await asyncio.sleep(0)
        return b"".join(made)


def _error(status: int, text: str, headers: str = "") -> bytes:
    return _response(status, "application/json", json.dumps({"error": text}).encode(), headers)


def _response(
    status: int, content_type: str, body: bytes, headers: str = "", *, with_body: bool = True
) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n{headers}\r\n"
    )
    return head.encode() + (body if with_body else b"")
