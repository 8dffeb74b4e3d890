"""The file that says "ready" to scripts: JSON with the addresses and the process id, there as long as the
server is ready."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from fastserve.server.listeners import StartError


class ReadyFile:
    """Without a path it does nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def clear(self) -> None:
        """Removes what an earlier run left behind; StartError when the file cannot be written later on."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
            temporary = self._temporary(self._path)
            temporary.touch()
            temporary.unlink()
        except OSError as error:
            raise StartError(
                f"cannot write the ready file {self._path}: {os.strerror(error.errno or 0)}; choose another "
                "with --ready-file"
            ) from None

    def write(self, addresses: Mapping[str, str]) -> None:
        """In one step: who sees the file sees all of it."""
        if self._path is None:
            return
        temporary = self._temporary(self._path)
        temporary.write_text(json.dumps({**addresses, "pid": str(os.getpid())}) + "\n")
        temporary.replace(self._path)

    def remove(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(f".{path.name}.{os.getpid()}")
