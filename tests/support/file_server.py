"""A web server of files in memory, with ranges, ETags, pages of links, and faults on request."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class FileServer:
    """`files`: path ("/models/digits/1/model.onnx") -> content; may be changed while it serves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.status = 0  # of every answer, when not 0
        self.refusals: list[int] = []  # statuses of the next answers
        self.cut_after: dict[
            str, int
        ] = {}  # bytes of a file's content that are sent in all; then the connection ends
        self.spoiled: set[str] = set()  # files whose bytes arrive changed
        self.before_read: Callable[[str, int], None] = lambda path, start: None
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self._sent: dict[str, int] = {}
        self._lock = threading.Lock()
        server = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self, body=True)

            def do_HEAD(self) -> None:
                server._answer(self, body=False)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def gets(self, path: str) -> list[str]:
        """The ranges that were asked for."""
        return [range_ for method, asked, range_ in self.requests if (method, asked) == ("GET", path)]

    def sent(self, path: str) -> int:
        return self._sent.get(path, 0)

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.partition("?")[0]
        wanted = request.headers.get("Range", "")
        with self._lock:
            self.requests.append((request.command, path, wanted))
            status = self.status or (self.refusals.pop(0) if self.refusals else 0)
        if status:
            self._send(request, status, {}, b"refused", body)
        elif path in self.files:
            self._file(request, path, wanted, body)
        elif page := self._page(path):
            self._send(request, 200, {"Content-Type": "text/html"}, page, body)
        else:
            self._send(request, 404, {}, b"not here", body)

    def _file(self, request: BaseHTTPRequestHandler, path: str, wanted: str, body: bool) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted) if self.ranges else None
        if body:
            self.before_read(path, int(found[1]) if found else 0)
        content = self.files[path]
        headers = {
            "ETag": f'"{hashlib.blake2b(content).hexdigest()[:20]}"',
            "Content-Type": "application/octet-stream",
        }
        if path in self.spoiled:
            content = bytes([content[0] ^ 1]) + content[1:]
        if found is None:
            self._send(request, 200, headers, content, body, path)
            return
        start, stop = int(found[1]), min(int(found[2]) + 1, len(content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(request, 206, headers, content[start:stop], body, path)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        content: bytes,
        body: bool,
        path: str = "",
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if not body:
            return
        with self._lock:
            left = self.cut_after.get(path, 1 << 60) - self._sent.get(path, 0)
            part = content[: max(left, 0)]
            self._sent[path] = self._sent.get(path, 0) + len(part)
        request.wfile.write(part)
        if len(part) < len(content):
            request.wfile.flush()
            request.close_connection = True

    def _page(self, path: str) -> bytes:
        folder = path.rstrip("/") + "/"
        names = {
            name[len(folder) :].partition("/")[0] + ("/" if "/" in name[len(folder) :] else "")
            for name in self.files
            if name.startswith(folder)
        }
        links = "".join(f'<a href="{name}">{name}</a>' for name in sorted(names))
        sorts = '<a href="?C=N;O=D">Name</a><a href="../">up</a><a href="/elsewhere">x</a>'
        return f"<html><body>{sorts}{links}</body></html>".encode() if names else b""
