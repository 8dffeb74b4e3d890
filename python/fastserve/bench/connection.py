"""A socket with a session on it: connecting, TLS, reading and writing without blocking."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from fastserve.bench.grpc_session import GrpcSession
from fastserve.bench.plan import Target
from fastserve.bench.rest_session import RestSession
from fastserve.bench.session import Done, Session

_RECEIVE_BYTES = 256 << 10
_MAX_BODY_BYTES = 1 << 30


def grpc_fields(target: Target) -> list[tuple[str, str]]:
    return [
        (":path", "/inference.GRPCInferenceService/ModelInfer"),
        (":authority", target.address.authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "fastserve-bench"),
        ("grpc-timeout", f"{max(1, int(target.timeout_s * 1000))}m"),
        *((name.lower(), value) for name, value in target.headers),
    ]


def new_session(target: Target) -> Session:
    if target.address.protocol == "grpc":
        return GrpcSession("https" if target.address.tls else "http", grpc_fields(target))
    return RestSession(_MAX_BODY_BYTES)


def tls_context(target: Target) -> ssl.SSLContext | None:
    if not target.address.tls:
        return None
    context = target.tls.context()
    context.set_alpn_protocols(["h2" if target.address.protocol == "grpc" else "http/1.1"])
    return context


class Connection:
    """Raises OSError when it cannot be made."""

    def __init__(self, target: Target, context: ssl.SSLContext | None, connect_s: float) -> None:
        address = target.address
        if address.unix_path:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(connect_s)
            try:
                made.connect(address.unix_path)
            except BaseException:
                made.close()
                raise
        else:
            made = socket.create_connection((address.host, address.port), connect_s)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            made = context.wrap_socket(made, server_hostname=target.tls.server_name or address.host)
        made.setblocking(False)
        self.socket: Any = made  # socket.socket or ssl.SSLSocket
        self._tls = context is not None
        self.session = new_session(target)
        self._pending = memoryview(b"")  # what the kernel did not take
        self.waits_to_write = False  # epoll has been asked
        self.is_free = False  # stands in the driver's line of connections with room

    @property
    def wants_to_write(self) -> bool:
        return bool(self._pending) or bool(self.session.out)

    def write(self) -> list[Done]:
        """As much as the kernel takes."""
        try:
            while self._pending or self.session.out:
                if not self._pending:
                    out = self.session.out
                    self._pending = memoryview(out[0] if len(out) == 1 else b"".join(out))
                    out.clear()
                self._pending = self._pending[self.socket.send(self._pending) :]
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return []
        except OSError:
            return self.session.feed(b"")
        return []

    def read(self) -> list[Done]:
        done: list[Done] = []
        while True:
            try:
                data = self.socket.recv(_RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return done
            except OSError:
                data = b""
            done += self.session.feed(data)
            if not data or not self._tls:  # plain sockets: epoll tells of the rest
                return done

    def close(self) -> None:
        self.socket.close()
