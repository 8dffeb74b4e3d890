"""Certificates of the gRPC and REST ports: opened at start, read again when the files change or SIGHUP asks for it.

Files are looked at every CHECK_S seconds by name, without a watch on them: that sees renames, the swapped symbolic links of
Kubernetes' secret mounts and network file systems alike. Connections that are open keep what they started with. Files that do
not fit (half of them written) change nothing; the next look tries again.

Everything runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fastserve import config
from fastserve._io import TlsFiles
from fastserve.server.listeners import StartError

log = logging.getLogger("fastserve.tls")

CHECK_S = 10.0
DAY_S = 86400
WARN_S = (
    14 * DAY_S
)  # before the end; a certificate that lives for less than six weeks: in the last third of its life

Mark = tuple[tuple[int, int, int] | None, ...]


def open_certificates(settings: config.Tls) -> Certificates | None:
    """None: TLS is off. StartError when the settings or the files are wrong."""
    if settings.cert is None:
        for value, flag in ((settings.key, "--tls-key"), (settings.client_ca, "--tls-client-ca")):
            if value is not None:
                raise StartError(f"{flag} is given without --tls-cert: TLS needs a certificate")
        return None
    if settings.key is None:
        raise StartError(
            "--tls-cert is given without --tls-key: name the private key (it may be in the same file)"
        )
    return Certificates(settings, settings.cert, settings.key)


class Certificates:
    def __init__(
        self, settings: config.Tls, cert: Path, key: Path, *, now: Callable[[], float] = time.time
    ) -> None:
        self._paths = (cert, key, settings.client_ca)
        self._now = now
        self._mark = self._look()
        self._complaint = ""
        self._warned_days: int | None = None
        self._check: asyncio.TimerHandle | None = None
        self.reloads = {"success": 0, "failure": 0}
        try:
            self.files = TlsFiles(
                cert,
                key,
                client_ca=settings.client_ca,
                min_version=settings.min_version,
                handshake_timeout_s=settings.handshake_timeout_s,
            )
        except ValueError as error:
            raise StartError(f"TLS: {error}") from None
        self.grpc = self.files if settings.ports in ("both", "grpc") else None
        self.http = self.files if settings.ports in ("both", "http") else None
        mutual = settings.client_ca is not None
        self.curl_options = f"--cacert {shlex.quote(os.fspath(cert))} " + (
            "--cert client.pem --key client.key " if mutual else ""
        )

    def start(self) -> None:
        log.info("TLS certificate %s", self._described(), extra=self._facts())
        self._warn_of_end()
        self._check = asyncio.get_running_loop().call_later(CHECK_S, self._on_check)

    def stop(self) -> None:
        if self._check is not None:
            self._check.cancel()

    def reload(self) -> None:
        """What SIGHUP does."""
        self._mark = self._look()
        before = self.files.sha256
        try:
            self.files.reload()
        except ValueError as error:
            self._failed(str(error))
            return
        self._complaint = ""
        self.reloads["success"] += 1
        what = "the same certificate" if self.files.sha256 == before else "a new certificate"
        log.info("TLS files were read again: %s, %s", what, self._described(), extra=self._facts())
        self._warned_days = None
        self._warn_of_end()

    def check(self) -> None:
        """Reloads what has changed, or was wrong the last time."""
        if self._complaint or self._look() != self._mark:
            self.reload()
        self._warn_of_end()

    def _on_check(self) -> None:
        self.check()
        self._check = asyncio.get_running_loop().call_later(CHECK_S, self._on_check)

    def _look(self) -> Mark:
        """Changes whenever a file does; symbolic links are followed."""
        return tuple(_mark_of(path) for path in self._paths if path is not None)

    def _failed(self, reason: str) -> None:
        self.reloads["failure"] += 1
        if reason == self._complaint:
            return  # said already
        self._complaint = reason
        log.error(
            "TLS files were not taken, the former certificate stays in use (trying again every %g s): %s",
            CHECK_S,
            reason,
        )

    def _warn_of_end(self) -> None:
        """One line a day."""
        left_s = self.files.not_after - self._now()
        lifetime_s = self.files.not_after - self.files.not_before
        days = int(left_s // DAY_S)
        if left_s > min(WARN_S, lifetime_s / 3) or days == self._warned_days:
            return
        self._warned_days = days
        words = (
            "has expired" if left_s <= 0 else f"expires in {days} days" if days else "expires within a day"
        )
        log.warning("TLS certificate %s: %s", words, self._described(), extra=self._facts())

    def _described(self) -> str:
        return f"{self.files.subject} of {self._paths[0]}, valid until {_date(self.files.not_after)}"

    def _facts(self) -> dict[str, str]:
        return {"not_after": _date(self.files.not_after), "sha256": self.files.sha256}


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
