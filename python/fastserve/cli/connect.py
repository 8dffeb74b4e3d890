"""The options by which a command finds its server, and a client whose errors are the command's one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastserve.cli.main import CommandError

if TYPE_CHECKING:
    from fastserve.client import Client, FastserveError

REFUSED = 1  # exit code when the server says no


def arguments(parser: argparse.ArgumentParser, *, default_url: str, timeout_s: float = 60.0) -> None:
    parser.add_argument(
        "--url",
        default=default_url,
        help="http://host:port, https://, grpc://host:port, grpcs://, unix:/path (gRPC) or http+unix:/path "
        f"(default: {default_url})",
    )
    parser.add_argument(
        "--timeout", type=float, default=timeout_s, metavar="S", help="for an answer; in seconds"
    )
    parser.add_argument("--ca", metavar="FILE", help="authorities to trust (PEM), for https:// and grpcs://")
    parser.add_argument("--cert", metavar="FILE", help="our certificate (PEM), where the server wants one")
    parser.add_argument("--key", metavar="FILE", help="its key (PEM)")
    parser.add_argument(
        "--header",
        dest="headers",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="sent with every request; gRPC: metadata",
    )


def url_of(args: argparse.Namespace) -> str:
    """Without a scheme it is HTTP, as curl has it."""
    url: str = args.url
    return url if "://" in url or url.startswith(("unix:", "grpc+unix:", "http+unix:")) else f"http://{url}"


def headers_of(args: argparse.Namespace) -> dict[str, str]:
    headers = {}
    for text in args.headers:
        name, colon, value = text.partition(":")
        if not colon:
            raise CommandError(f"--header: got '{text}', expected NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


@contextmanager
def server(
    args: argparse.Namespace, *, binary: bool | None = None, least_timeout_s: float = 0.0
) -> Iterator[Client]:
    """Errors of the calls inside become CommandError. `least_timeout_s`: where --timeout is meant for other calls."""
    from fastserve.client import Client, FastserveError

    try:
        with Client(
            url_of(args),
            timeout=max(args.timeout, least_timeout_s),
            ca=args.ca,
            cert=args.cert,
            key=args.key,
            headers=headers_of(args),
            binary=binary,
        ) as client:
            yield client
    except FastserveError as error:
        raise command_error(error, args.url) from None


def command_error(error: FastserveError, url: str) -> CommandError:
    """The line for an error of the client."""
    from fastserve.errors import CODE_NAMES

    message = error.message
    if "Connection refused" in message or "No such file or directory" in message:
        hint = "start one with `fastserve serve` or correct --url"
        return CommandError(f"no server answers at {url}: {hint}", REFUSED)
    if message.startswith(
        ("url: ", "timeout: ", "headers[", "cert and key", "tls: ")
    ):  # said by us, before any request
        return CommandError(f"--{message}")
    if error.http_status is not None:
        return CommandError(f"{_http_text(error.http_status)}: {message}", REFUSED)
    if error.code == 14:  # the connection; the message says which
        return CommandError(message, REFUSED)
    return CommandError(f"{CODE_NAMES.get(error.code, error.code)}: {message}", REFUSED)


def _http_text(status: int) -> str:
    from http import HTTPStatus

    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
