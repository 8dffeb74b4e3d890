"""HttpCall -> ASGI 3: any ASGI application answers the HTTP requests that are not inference.

A response whose body comes in one piece is sent with its length; one in several pieces is streamed. Application
errors become 500 with a JSON body that says nothing of the inside; the traceback goes to the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from fastserve._io import HttpCall

log = logging.getLogger("fastserve.http")
access_log = logging.getLogger("fastserve.access")  # one line per request, where somebody turned it on

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


class AsgiDriver:
    """Runs one application for the calls of one loop; `on_call` is what IoLoop wants as `on_http_call`."""

    def __init__(self, app: App, server: tuple[str, int] | None = None) -> None:
        self._app = app
        self._server = server
        self._state: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lifespan = _Lifespan(app, self._state)

    async def startup(self) -> None:
        """Raises RuntimeError when the application says that it cannot start."""
        await self._lifespan.startup()

    async def shutdown(self) -> None:
        """Ends calls that still run, then tells the application."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lifespan.shutdown()

    def on_call(self, call: HttpCall) -> None:
        exchange = _Exchange(call)
        try:
            scope = _scope(call, self._server, self._state)
        except UnicodeDecodeError:
            exchange.fail(400, "the request target is not UTF-8 under its percent-encoding")
            return
        task = asyncio.get_running_loop().create_task(_run(self._app, scope, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        call.on_cancel = exchange.disconnected.set


def _scope(call: HttpCall, server: tuple[str, int] | None, state: dict[str, Any]) -> dict[str, Any]:
    raw_path, _, query = call.target.partition("?")
    if not raw_path.startswith("/"):  # absolute form: http://host/path
        raw_path = "/" + raw_path.partition("://")[2].partition("/")[2]
    host, _, port = call.peer.rpartition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "https" if call.secure else "http",
        "path": unquote_to_bytes(raw_path).decode(),  # decoded once
        "raw_path": raw_path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": call.headers,
        "client": (host, int(port)) if port.isdigit() else None,
        "server": server,
        "state": state.copy(),
    }


async def _run(app: App, scope: dict[str, Any], exchange: _Exchange) -> None:
    request_id = (
        next((v.decode("latin-1") for k, v in scope["headers"] if k == b"x-request-id"), "")[:128] or None
    )
    if access_log.isEnabledFor(logging.INFO):
        client = scope["client"]
        peer = f"{client[0]}:{client[1]}" if client else None
        access_log.info(
            "%s %s", scope["method"], scope["path"][:256], extra={"request_id": request_id, "peer": peer}
        )
    try:
        await app(scope, exchange.receive, exchange.send)
    except Exception:
        if exchange.abandoned:  # the application was told so; there is nobody left to answer
            return
        log.exception("%s %s failed", scope["method"], scope["path"][:128], extra={"request_id": request_id})
        exchange.fail(500, "internal error; the server's log says why")
    except asyncio.CancelledError:
        exchange.fail(503, "the server is shutting down")
    else:
        if not exchange.finished:
            log.error("%s %s: no complete response", scope["method"], scope["path"][:128])
            exchange.fail(500, "internal error; the server's log says why")


class _Exchange:
    """`receive` and `send` of one request."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call
        self._body_taken = False
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None  # not sent yet
        self._streaming = False
        self.finished = False
        self.disconnected = asyncio.Event()

    @property
    def abandoned(self) -> bool:
        """The client is gone."""
        return self._call.cancelled

    async def receive(self) -> Message:
        if not self._body_taken:
            self._body_taken = True
            return {"type": "http.request", "body": self._call.body, "more_body": False}
        await self.disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._call.cancelled:
            self.finished = True
            raise OSError("the client went away")  # as ASGI 2.4 wants it
        if message["type"] == "http.response.start":
            self._head = (message["status"], [(bytes(k), bytes(v)) for k, v in message.get("headers", ())])
            return
        if (
            message["type"] != "http.response.body"
            or self.finished
            or (self._head is None and not self._streaming)
        ):
            raise RuntimeError(f"unexpected ASGI message {message['type']!r}")
        self._write(bytes(message.get("body", b"")), bool(message.get("more_body", False)))

    def fail(self, status: int, text: str) -> None:
        """Answers with an error if nothing has been sent. What was begun is left without its end: the call is
        dropped with this object, and the client sees a cut connection instead of a short answer."""
        if self.finished or self._call.cancelled:
            return
        self.finished = True
        self.disconnected.set()
        if not self._streaming:
            self._call.respond(status, [_JSON], json.dumps({"error": text}).encode())

    def _write(self, body: bytes, more: bool) -> None:
        if self._call.method == "HEAD":
            body = b""
        if self._head is not None and not more:
            status, headers = self._head
            # respond() sends the length itself; of HEAD it only knows what the application says.
            if self._call.method != "HEAD":
                headers = [h for h in headers if h[0].lower() != b"content-length"]
            self._call.respond(status, headers, body)
        else:
            if self._head is not None:
                self._call.start(*self._head)
                self._streaming = True
            if body:
                self._call.write(body)
            if not more:
                self._call.end()
        self._head = None
        self.finished = not more
        if self.finished:
            self.disconnected.set()


class _Lifespan:
    """The lifespan protocol; an application that does not know it is left alone."""

    def __init__(self, app: App, state: dict[str, Any]) -> None:
        self._app = app
        self._scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        self._in: asyncio.Queue[Message] = asyncio.Queue()
        self._out: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def startup(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._ask("lifespan.startup")

    async def shutdown(self) -> None:
        if self._task is not None and not self._task.done():
            await self._ask("lifespan.shutdown")
            await self._task

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._in.get, self._out.put)
        except Exception as error:
            # Before the first answer this is how an application says that it knows no lifespan.
            log.debug("lifespan ended: %r", error)
        finally:
            self._out.put_nowait({"type": "ended"})

    async def _ask(self, event: str) -> None:
        self._in.put_nowait({"type": event})
        answer = await self._out.get()
        if answer["type"] == f"{event}.failed":
            raise RuntimeError(f"the application failed at {event}: {answer.get('message', '')}")
