from __future__ import annotations

import pytest

from fastserve.client.address import parse
from fastserve.client.settings import MAX_MESSAGE_BYTES, Settings, settings
from fastserve.errors import InvalidArgument


@pytest.mark.parametrize(
    ("url", "protocol", "tls", "authority", "shown"),
    [
        ("grpc://host:8001", "grpc", False, "host:8001", "grpc://host:8001"),
        ("grpcs://host:443", "grpc", True, "host:443", "grpcs://host:443"),
        ("http://host", "http", False, "host:80", "http://host:80"),
        ("https://host", "http", True, "host:443", "https://host:443"),
        ("http://[::1]:8000", "http", False, "[::1]:8000", "http://[::1]:8000"),
        ("http://gate:1/models/", "http", False, "gate:1", "http://gate:1/models"),
        ("unix:/run/a.sock", "grpc", False, "localhost", "unix:/run/a.sock"),
        ("unix:///run/a.sock", "grpc", False, "localhost", "unix:/run/a.sock"),
        ("http+unix:/run/a.sock", "http", False, "localhost", "http+unix:/run/a.sock"),
    ],
)
def test_addresses(url: str, protocol: str, tls: bool, authority: str, shown: str) -> None:
    address = parse(url)
    assert (address.protocol, address.tls, address.authority, str(address)) == (
        protocol,
        tls,
        authority,
        shown,
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8001", "expected grpc://host:port"),
        ("ftp://a", "got 'ftp://a', expected grpc://"),
        ("http://", "expected grpc://"),
        ("http://a:b", "'http://a:b' has no good port"),
        ("grpc://host", "expected a port: grpc://host:8001"),
        ("grpc://host:1/path", "a gRPC address has no path"),
        ("unix:", "expected a path"),
    ],
)
def test_bad_addresses(url: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(url)
    assert words in caught.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "grpc://localhost:1", "unix:/a", "http://[::1]:1"])
def test_loopback(url: str) -> None:
    assert parse(url).is_loopback
    assert not parse("http://10.0.0.1").is_loopback


def made(url: str = "http://a:1", **arguments: object) -> Settings:
    values: dict[str, object] = {
        "timeout": 1.0,
        "retry": None,
        "ca": None,
        "cert": None,
        "key": None,
        "server_name": "",
        "headers": None,
        "max_connections": 1,
        "max_message_bytes": 1,
        "keepalive": None,
        "binary": None,
    }
    return settings(url, **(values | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"timeout": 0}, "timeout: got 0"),
        ({"max_connections": 0}, "max_connections: got 0"),
        ({"max_message_bytes": 0}, "max_message_bytes: got 0"),
        ({"max_message_bytes": MAX_MESSAGE_BYTES + 1}, f"max_message_bytes: got {MAX_MESSAGE_BYTES + 1}"),
        ({"ca": "a.pem"}, "expected grpcs:// or https://"),
        ({"url": "https://a", "cert": "a.pem"}, "cert and key: one without the other"),
        ({"headers": {"a b": "c"}}, 'headers["a b"]'),
        ({"headers": {"a": "b\r\nc: d"}}, 'headers["a"]'),
    ],
)
def test_bad_settings(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        made(**arguments)  # type: ignore[arg-type]
    assert words in caught.value.message


def test_limits_hold_their_ends() -> None:
    assert made(max_message_bytes=MAX_MESSAGE_BYTES).max_message_bytes == MAX_MESSAGE_BYTES
    assert made(max_message_bytes=1, max_connections=1).max_connections == 1
