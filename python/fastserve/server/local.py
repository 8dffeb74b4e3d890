"""The listener of the local transport (`--local`): a Unix socket for the server's own user, in front of _core.LocalServer."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from fastserve import _core
from fastserve.server.listeners import StartError, address_text, listen_unix


class LocalTransport:
    """Thread: the loop's; `close` blocks and belongs on another."""

    def __init__(self, sock: socket.socket, core: _core.LocalServer) -> None:
        self._sock = sock
        self._core = core
        self.address = address_text(sock)

    def start(self) -> None:
        self._core.listen(self._sock.fileno())

    def stop_listening(self) -> None:
        self._core.stop_listening()
        Path(self._sock.getsockname()).unlink(missing_ok=True)
        self._sock.close()

    def statistics(self) -> _core.LocalStatistics:
        return self._core.statistics()

    def close(self) -> None:
        """Ends every connection; waits for the requests that run."""
        self._core.close()


def local_transport(path: str, uids: Sequence[str], engine: _core.Engine) -> LocalTransport:
    """Opens the socket (mode 0600); nothing is accepted before start(). Raises StartError."""
    try:
        users = [int(uid) for uid in uids]
    except ValueError:
        raise StartError(f"--local-uid: got {', '.join(uids)}, want numbers of users") from None
    sock = listen_unix(path.removeprefix("unix:"), "--local", kind=socket.SOCK_SEQPACKET, mode=0o600)
    return LocalTransport(sock, _core.LocalServer(engine, uids=users))
