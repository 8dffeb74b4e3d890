"""What a client is opened with; shared by the four transports."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastserve.client.address import Address, parse
from fastserve.client.retry import Retry
from fastserve.errors import InvalidArgument

MAX_MESSAGE_BYTES = (1 << 31) - 1  # gRPC's own bound; also that of an HTTP response
MAX_CONNECTIONS = 16  # of an HTTP client; a gRPC client has one connection with many streams
IDLE_CONNECTION_S = (
    30.0  # after it a pooled HTTP connection is not used again: the server may be about to close it
)


@dataclass(frozen=True)
class Tls:
    """PEM files: the authorities to trust (the system's without), our own certificate and key (mTLS)."""

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str = ""  # that the certificate has to name, where it is not the address's host

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(
                f"tls: {error} ({self.ca or ''} {self.cert or ''} {self.key or ''})"
            ) from None
        context.set_alpn_protocols(["http/1.1"])
        return context

    def read(self, file: str | Path | None) -> bytes | None:
        """For grpcio, which takes contents."""
        if file is None:
            return None
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise InvalidArgument(f"tls: {file}: {error.strerror or error}") from None


@dataclass(frozen=True)
class Settings:
    address: Address
    timeout: float | None
    retry: Retry
    tls: Tls
    headers: Mapping[str, str] = field(default_factory=dict)  # with every request; gRPC: metadata
    max_connections: int = MAX_CONNECTIONS
    max_message_bytes: int = MAX_MESSAGE_BYTES
    keepalive: float | None = None  # seconds between gRPC pings of an idle connection, None: no pings
    binary: bool | None = None


def settings(
    url: str,
    *,
    timeout: float | None,
    retry: Retry | None,
    ca: str | Path | None,
    cert: str | Path | None,
    key: str | Path | None,
    server_name: str,
    headers: Mapping[str, str] | None,
    max_connections: int,
    max_message_bytes: int,
    keepalive: float | None,
    binary: bool | None,
) -> Settings:
    """Raises InvalidArgument, naming the argument."""
    address = parse(url)
    if (ca or cert or key or server_name) and not address.tls:
        raise InvalidArgument(f"url: got '{url}' with TLS files, expected grpcs:// or https://")
    if bool(cert) != bool(key):
        raise InvalidArgument("cert and key: one without the other")
    if timeout is not None and timeout <= 0:
        raise InvalidArgument(f"timeout: got {timeout}, expected more than 0 seconds, or None")
    if max_connections < 1:
        raise InvalidArgument(f"max_connections: got {max_connections}, expected 1 or more")
    if not 0 < max_message_bytes <= MAX_MESSAGE_BYTES:
        raise InvalidArgument(
            f"max_message_bytes: got {max_message_bytes}, expected 1 to {MAX_MESSAGE_BYTES}"
        )
    for name, value in (headers or {}).items():
        if (
            not name.isascii()
            or not name.replace("-", "").replace("_", "").isalnum()
            or set(value) & set("\r\n\0")
        ):
            raise InvalidArgument(f'headers["{name[:60]}"]: not a header')
    tls = Tls(ca, cert, key, server_name)
    return Settings(
        address,
        timeout,
        retry or Retry(),
        tls,
        dict(headers or {}),
        max_connections,
        max_message_bytes,
        keepalive,
        binary,
    )
