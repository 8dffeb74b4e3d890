"""The connections of a load process, and epoll over them. One thread. It knows time and sockets; sessions know neither."""

from __future__ import annotations

import select
import time
from collections import deque
from typing import NamedTuple

from fastserve.bench.connection import Connection, tls_context
from fastserve.bench.plan import Target
from fastserve.bench.session import Done, Payload

_CONNECT_S = 5.0
_PAUSE_AFTER_FAILURE_NS = 50_000_000
_DEADLINE_EXCEEDED = 4


class _Tag(NamedTuple):
    due_ns: int
    sent_ns: int


class Driver:
    """Keeps its connections from step to step."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._context = tls_context(target)
        self._payloads = [Payload(content) for content in target.payloads]
        self._next_payload = 0
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._free: deque[Connection] = deque()
        self._no_connect_before_ns = 0
        self.in_flight = 0

    def connect(self, count: int) -> None:
        """Raises OSError. Idle connections above `count` are closed."""
        for connection in list(self._connections.values())[count:]:
            self._drop(connection)
        while len(self._connections) < count:
            self._connect()
        self._ready()

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.close()

    def _connect(self) -> None:
        connection = Connection(self._target, self._context, _CONNECT_S)
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, select.EPOLLIN)
        self.written(connection)
        self.refresh(connection)

    def _ready(self) -> None:
        """Until the servers' SETTINGS are there, or a second has passed."""
        until = time.monotonic() + 1.0
        while time.monotonic() < until and any(c.session.room == 0 for c in self._connections.values()):
            self.poll(0.05)

    def _drop(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        if self._connections.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        if connection.is_free:
            self._free.remove(connection)
            connection.is_free = False
        connection.close()

    def send(self, due_ns: int, now_ns: int) -> Connection:
        """Only with `has_room`."""
        connection = self._free[0]
        session = connection.session
        payloads = self._payloads
        at = self._next_payload
        self._next_payload = at + 1 if at + 1 < len(payloads) else 0
        session.send(_Tag(due_ns, now_ns), payloads[at])
        self.in_flight += 1
        if session.room:
            self._free.rotate(-1)
        else:
            self._free.popleft()
            connection.is_free = False
        return connection

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    def refresh(self, connection: Connection) -> None:
        """Puts it in line, or takes it away when it is done with."""
        session = connection.session
        if session.closing:
            if connection.is_free:
                self._free.remove(connection)
                connection.is_free = False
            if not session.in_flight:
                self._drop(connection)
        elif not connection.is_free and session.room:
            self._free.append(connection)
            connection.is_free = True

    def written(self, connection: Connection) -> list[Done]:
        """Writes; asks epoll for the rest when the kernel is full."""
        done = connection.write()
        full = connection.wants_to_write
        if full != connection.waits_to_write:
            connection.waits_to_write = full
            self._epoll.modify(connection.socket, select.EPOLLIN | (select.EPOLLOUT if full else 0))
        return done

    def poll(self, timeout_s: float) -> list[Done]:
        """Everything that has come within the time."""
        done: list[Done] = []
        for fd, events in self._events(timeout_s):
            connection = self._connections.get(fd)
            if connection is None:
                continue
            found = connection.read() if events & ~select.EPOLLOUT else []
            if events & select.EPOLLOUT or connection.session.out:
                found += self.written(connection)
            self.in_flight -= len(found)
            self.refresh(connection)
            done += found
        return done

    def _events(self, timeout_s: float) -> list[tuple[int, int]]:
        """epoll counts whole milliseconds, rounded up; select has microseconds, and an epoll can be waited for."""
        if 0 < timeout_s < 0.002:
            select.select([self._epoll], [], [], timeout_s)
            timeout_s = 0
        return self._epoll.poll(int(timeout_s * 1000 - 1) / 1000 if timeout_s else 0)

    def keep_up(self, wanted: int, now_ns: int) -> str:
        """Replaces connections that went; what kept it from doing so, or ""."""
        while len(self._connections) < wanted and now_ns >= self._no_connect_before_ns:
            try:
                self._connect()
            except OSError as error:
                self._no_connect_before_ns = now_ns + _PAUSE_AFTER_FAILURE_NS
                return str(error) or type(error).__name__
        return ""

    def expire(self, before_ns: int) -> list[Done]:
        """Gives up what was sent before."""
        done = []
        for connection in list(self._connections.values()):
            session = connection.session
            while (tag := session.oldest()) is not None and tag.sent_ns < before_ns:
                session.cancel_oldest()
                self.in_flight -= 1
                done.append(Done(tag, _DEADLINE_EXCEEDED, f"no answer within {self._target.timeout_s:g} s"))
            if session.out:
                self.written(connection)
            self.refresh(connection)
        return done

    @property
    def received_bytes(self) -> int:
        return sum(connection.session.received_bytes for connection in self._connections.values())

    @property
    def timeout_ns(self) -> int:
        return int(self._target.timeout_s * 1e9)
