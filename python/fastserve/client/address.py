"""A server's address as the user writes it -> what a transport opens. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from fastserve.errors import InvalidArgument

EXPECTED = (
    "grpc://host:port, grpcs://host:port, http://host[:port], https://host[:port], "
    "unix:/path (gRPC) or http+unix:/path"
)
_UNIX = {"unix": "grpc", "grpc+unix": "grpc", "http+unix": "http"}
_DEFAULT_PORTS = {"http": 80, "https": 443}  # gRPC has no port that everybody uses: it has to be said


@dataclass(frozen=True)
class Address:
    """Either `host` and `port`, or `unix_path`. `prefix` is a path in front of /v2 (REST behind a gateway)."""

    protocol: Literal["grpc", "http"]
    tls: bool
    host: str = ""
    port: int = 0
    unix_path: str = ""
    prefix: str = ""

    @property
    def authority(self) -> str:
        """host:port as it stands in a Host header or :authority; IPv6 in brackets."""
        if self.unix_path:
            return "localhost"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return bool(self.unix_path) or self.host in {"localhost", "::1"} or self.host.startswith("127.")

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix:{self.unix_path}" if self.protocol == "grpc" else f"http+unix:{self.unix_path}"
        return f"{self.protocol}{'s' if self.tls else ''}://{self.authority}{self.prefix}"


def parse(url: str) -> Address:
    """Raises InvalidArgument with what was given and what is expected."""
    scheme, _, rest = url.partition(":")
    if scheme in _UNIX:
        path = "/" + rest.lstrip("/") if rest.startswith("/") else rest
        if not path:
            raise InvalidArgument(f"url: got '{url}', expected a path: unix:/run/fastserve.sock")
        return Address("grpc" if _UNIX[scheme] == "grpc" else "http", tls=False, unix_path=path)
    parts = urlsplit(url)
    if parts.scheme not in {"grpc", "grpcs", "http", "https"} or not parts.hostname:
        raise InvalidArgument(f"url: got '{url}', expected {EXPECTED}")
    try:
        port = parts.port
    except ValueError:
        raise InvalidArgument(f"url: '{url}' has no good port") from None
    port = _DEFAULT_PORTS.get(parts.scheme, 0) if port is None else port
    if not port:
        raise InvalidArgument(f"url: got '{url}', expected a port: {parts.scheme}://{parts.hostname}:8001")
    protocol: Literal["grpc", "http"] = "grpc" if parts.scheme.startswith("grpc") else "http"
    prefix = parts.path.rstrip("/")
    if protocol == "grpc" and prefix:
        raise InvalidArgument(f"url: got '{url}', a gRPC address has no path")
    return Address(protocol, parts.scheme.endswith("s"), parts.hostname, port, prefix=prefix)
