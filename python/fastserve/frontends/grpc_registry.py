"""Every gRPC method but ModelInfer: an async function, registered by its path.

    @rpc("/inference.GRPCInferenceService/ServerLive")
    async def server_live(request, call):
        return call.response(live=True)

Message classes and what is a stream come from the service's descriptor. Where the answer is a stream, the
handler is an async generator; where the requests are, it gets an async iterator of them. Handlers raise
`FastserveError` for what the client shall see; anything else is INTERNAL and goes to the log. A module of this
package whose name ends in `_rpcs` is found by itself: a new method touches one file.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import DecodeError

from fastserve import frontends, protos
from fastserve._io import GrpcCall
from fastserve.errors import FastserveError, InvalidArgument
from fastserve.frontends.served import Served

log = logging.getLogger("fastserve.grpc")
access_log = logging.getLogger("fastserve.access")  # one line per call, where somebody turned it on

# gRPC's numbers for what no exception class of ours stands for here.
CANCELLED, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 1, 4, 12, 13, 14
MAX_ECHO_CHARS = 128  # of a client's text inside an error message
REFLECTION = "/grpc.reflection."  # how the paths of reflection begin


@dataclass(frozen=True)
class RpcCall:
    """What a handler gets besides the request message."""

    served: Served
    response: type[Any]  # class of the response message
    metadata: list[tuple[str, bytes]]  # lower-case names

    @property
    def request_id(self) -> str | None:
        """The client's `x-request-id`, for the log."""
        return next(
            (v.decode("latin-1")[:MAX_ECHO_CHARS] for k, v in self.metadata if k == "x-request-id"), None
        )


Handler = Callable[[Any, RpcCall], Awaitable[Any]] | Callable[[Any, RpcCall], AsyncIterator[Any]]
H = TypeVar("H", bound=Handler)

_registered: dict[str, Handler] = {}


def rpc(path: str) -> Callable[[H], H]:
    """Registers a handler for `/package.Service/Method`; ValueError when the path is taken."""

    def register(handler: H) -> H:
        if path in _registered:
            raise ValueError(f"two handlers for {path}: {_registered[path]} and {handler}")
        _registered[path] = handler
        return handler

    return register


def registered() -> Mapping[str, Handler]:
    """All handlers of this package, by path; imports its `*_rpcs` modules."""
    for module in pkgutil.iter_modules(frontends.__path__):
        if module.name.endswith("_rpcs"):
            importlib.import_module(f"{frontends.__name__}.{module.name}")
    return _registered


def offered(reflection: bool) -> Mapping[str, Handler]:
    """Those that a server answers: `registered`, and reflection only where it is switched on."""
    found = registered()
    return {path: h for path, h in found.items() if reflection or not path.startswith(REFLECTION)}


@dataclass(frozen=True)
class _Method:
    handler: Any
    request: type[Any]
    response: type[Any]
    takes_stream: bool  # the requests are a stream
    streams: bool  # the answer is a stream


def _method(path: str, handler: Handler) -> _Method:
    method = protos.method(path)
    return _Method(
        handler,
        protos.message_class(method.input_type.full_name),
        protos.message_class(method.output_type.full_name),
        method.client_streaming,
        method.server_streaming,
    )


class GrpcRouter:
    """Turns cold calls into tasks and their results into replies. Runs on the loop's thread.

    `on_call` is what IoLoop wants as `on_grpc_call`. Each call is finished exactly once, whatever the handler
    does, unless the client cancelled it: then its task is cancelled and nothing is sent.
    """

    def __init__(self, served: Served, handlers: Mapping[str, Handler] | None = None) -> None:
        self._served = served
        self._handlers = offered(served.reflection) if handlers is None else handlers
        self._methods: dict[str, _Method] = {}  # filled as they are called: descriptors cost time at start-up
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def on_call(self, call: GrpcCall) -> None:
        if self._closed:
            call.finish(UNAVAILABLE, "the server is shutting down")
            return
        try:
            method = self._find(call.path)
        except KeyError:
            call.finish(UNIMPLEMENTED, _unknown(call.path, self._handlers))
            return
        if call.timeout_seconds is not None and call.timeout_seconds <= 0:
            call.finish(DEADLINE_EXCEEDED, "Deadline Exceeded")
            return
        messages: asyncio.Queue[bytes | None] | None = None
        if call.takes_messages:
            messages = asyncio.Queue()
            call.on_message = messages.put_nowait
        task = asyncio.get_running_loop().create_task(self._serve(method, call, messages))
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._done(task, call))
        call.on_cancel = lambda: _cancel(task)

    def client_streams(self) -> list[str]:
        """Paths of the methods that take a stream of requests: what a driver hands over before the first of them."""
        return [path for path in self._handlers if protos.method(path).client_streaming]

    async def close(self) -> None:
        """Ends calls that still run (open health watches) with UNAVAILABLE, and refuses new ones."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None], call: GrpcCall) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # before its first step, so that nothing has answered yet
            self._finish(call, UNAVAILABLE, "the server is shutting down")

    def _find(self, path: str) -> _Method:
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = _method(path, self._handlers[path])
        return method

    async def _serve(
        self, method: _Method, call: GrpcCall, messages: asyncio.Queue[bytes | None] | None
    ) -> None:
        rpc_call = RpcCall(self._served, method.response, call.metadata)
        limit = asyncio.timeout(call.timeout_seconds)
        if access_log.isEnabledFor(logging.INFO):
            access_log.info(
                "gRPC %s", call.path, extra={"request_id": rpc_call.request_id, "peer": call.peer or None}
            )
        try:
            async with limit:
                await _answer(method, call, rpc_call, messages)
        except asyncio.CancelledError:
            self._finish(call, UNAVAILABLE, "the server is shutting down")
        except FastserveError as error:
            self._finish(call, error.code, error.message)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                self._finish(call, DEADLINE_EXCEEDED, "Deadline Exceeded")
                return
            log.exception(
                "%s failed", call.path, extra={"request_id": rpc_call.request_id, "peer": call.peer or None}
            )
            self._finish(call, INTERNAL, f"{call.path} failed; the server's log says why")

    def _finish(self, call: GrpcCall, code: int, message: str) -> None:
        if not call.cancelled:
            call.finish(code, message)


async def _answer(
    method: _Method, call: GrpcCall, rpc_call: RpcCall, messages: asyncio.Queue[bytes | None] | None
) -> None:
    if messages is None:
        request = _parse(method, call.message)
    else:
        request = _stream_of(method, call, messages)
    if not method.streams:
        response = await method.handler(request, rpc_call)
        if not call.cancelled:
            call.reply(response.SerializeToString())
        return
    async for response in method.handler(request, rpc_call):
        if call.cancelled:
            return
        call.send(response.SerializeToString())
    if not call.cancelled:
        call.finish()


def _parse(method: _Method, message: bytes) -> Any:
    try:
        return method.request.FromString(message)
    except DecodeError:
        name = method.request.DESCRIPTOR.full_name
        raise InvalidArgument(f"the message of {len(message)} bytes is no valid {name}") from None


async def _stream_of(
    method: _Method, call: GrpcCall, messages: asyncio.Queue[bytes | None]
) -> AsyncIterator[Any]:
    """The requests of a streaming method, until the client has no more."""
    while (message := await messages.get()) is not None:
        yield _parse(method, message)
        call.took()


def _unknown(path: str, handlers: Mapping[str, Handler]) -> str:
    """gRPC's usual words for a method that is not there."""
    shown = path[:MAX_ECHO_CHARS]
    service, _, method = shown.removeprefix("/").rpartition("/")
    if any(known.startswith(f"/{service}/") for known in handlers):
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}" if service else f"malformed method name: {shown!r}"


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
