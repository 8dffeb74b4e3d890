"""Authorities and certificates for tests, made with the openssl command (which the tests need for s_client as well)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

_EXTENSIONS = """[own]
subjectAltName = DNS:localhost, IP:127.0.0.1
extendedKeyUsage = {usage}
"""


class Issued(NamedTuple):
    cert: Path
    key: Path


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self.pem = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            *("-subj", f"/CN={name}", "-keyout", self._key, "-out", self.pem),
        )

    def issue(self, name: str, *, days: int = 2, usage: str = "serverAuth,clientAuth") -> Issued:
        """For localhost and 127.0.0.1. `days` -1: it has expired."""
        issued = Issued(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(_EXTENSIONS.format(usage=usage))
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", issued.key, "-out", request),
        )
        _openssl(
            *("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", str(days), "-extfile", extensions, "-extensions", "own", "-out", issued.cert),
        )
        return issued


def install(issued: Issued, folder: Path) -> Issued:
    """Puts both files where a server reads them, each in one step, as cert-manager and its like do."""
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((issued.cert, "tls.crt"), (issued.key, "tls.key")):
        temporary = folder / f".{name}.new"
        temporary.write_bytes(source.read_bytes())
        temporary.replace(folder / name)
    return Issued(folder / "tls.crt", folder / "tls.key")


def _openssl(*arguments: str | os.PathLike[str]) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
