"""The bytes that one request of the load client puts on the wire, and those of its reply."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

LIMIT_S = 30.0


def exchange(address: str, ask: Callable[[str], object]) -> tuple[bytes, bytes]:
    """Runs `ask("127.0.0.1:PORT")` once, which has to send through one connection, with `address` behind that port.
    Returns what went there and what came back, all of it."""
    host, _, port = address.rpartition(":")
    request, reply = bytearray(), bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)

        def relay() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection((host, int(port)), LIMIT_S) as server:
                client.settimeout(LIMIT_S)
                back = threading.Thread(target=_copy, args=(server, client, reply))
                back.start()
                _copy(client, server, request)
                back.join()

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            ask(f"127.0.0.1:{listener.getsockname()[1]}")
        finally:
            thread.join()
    return bytes(request), bytes(reply)


def _copy(source: socket.socket, target: socket.socket, seen: bytearray) -> None:
    try:
        while piece := source.recv(1 << 16):
            seen += piece
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one side is gone: so is the exchange
