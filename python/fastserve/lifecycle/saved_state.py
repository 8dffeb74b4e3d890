"""What clients changed, kept across restarts in one file (`--state-file`): models loaded and unloaded by request, and labels.

JSON, written as a whole beside the old one, synced and renamed over it: a reader or a crash sees the old state or the new one.
A lock on PATH.lock keeps a second server away. A file that cannot be understood stops the start: it was made by somebody else,
and going on without it would unload models unseen.

Runs on the event loop's thread; the file is written on another one. Failing to write costs a line in the log, not the operation.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fastserve.errors import FailedPrecondition, FastserveError
from fastserve.lifecycle.model_config import name_error

logger = logging.getLogger("fastserve.lifecycle")

VERSION = 1
MAX_BYTES = 64 << 20

Assigned = Mapping[str, Mapping[str, Mapping[int, float]]]  # model -> label -> version -> weight


@dataclass(frozen=True)
class SavedModel:
    """The last operation on a model that went well."""

    loaded: bool
    config: str | None = None  # JSON that the load brought along
    from_files: bool = False  # and files, which are not kept


class SavedState:
    def __init__(self, path: Path, lock_fd: int, models: dict[str, SavedModel], labels: Assigned) -> None:
        self._path = path
        self._lock_fd = lock_fd
        self.models = models
        self.labels = labels
        self._assigned: Callable[[], Assigned] = lambda: labels
        self._written = _text(models, labels)
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures = 0  # to write

    @classmethod
    def open(cls, path: Path) -> Self:
        """Blocking. FailedPrecondition says what to do: another server has it, or the file cannot be used."""
        path = path.absolute()
        lock_fd = _locked(path)
        try:
            models, labels = _read(path)
        except (OSError, ValueError) as error:
            os.close(lock_fd)
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            raise FailedPrecondition(
                f"the state file {path} cannot be used: {reason}; put it right, or move it away to start without what it keeps"
            ) from None
        return cls(path, lock_fd, models, labels)

    def configs(self) -> dict[str, str]:
        """That models were loaded with, by request and without files."""
        kept = {name: model for name, model in self.models.items() if model.loaded and not model.from_files}
        return {name: model.config for name, model in kept.items() if model.config is not None}

    def follow(self, assigned: Callable[[], Assigned]) -> None:
        """From now on labels are what this says (VersionLabels.assigned)."""
        self._assigned = assigned

    async def loaded(self, model: str, config: str | None, *, from_files: bool) -> None:
        self.models[model] = SavedModel(True, config, from_files)
        await self._write()

    async def unloaded(self, model: str) -> None:
        self.models[model] = SavedModel(False)
        await self._write()

    def labels_changed(self) -> None:
        """Nobody waits for it; `close` does."""
        task = asyncio.get_running_loop().create_task(self._write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)
        await self._write()
        os.close(self._lock_fd)

    async def _write(self) -> None:
        async with self._writing:
            text = _text(self.models, self._assigned())
            if text == self._written:
                return
            try:
                await asyncio.to_thread(_replace, self._path, text)
            except OSError as error:
                self.failures += 1
                reason = os.strerror(error.errno or 0)
                logger.error(
                    "%s: cannot be written, a restart will not know of this change: %s", self._path, reason
                )
            else:
                self._written = text


def _locked(path: Path) -> int:
    lock = path.with_name(f"{path.name}.lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise FailedPrecondition(
            f"the state file {path} cannot be used: {lock.name}: {error.strerror}; choose another with --state-file"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(fd, 32).decode("ascii", "replace").strip()
        os.close(fd)
        raise FailedPrecondition(
            f"the state file {path} is in use by another server (pid {owner or 'unknown'}): stop that one, or choose another "
            "with --state-file"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(models: Mapping[str, SavedModel], labels: Assigned) -> str:
    document = {
        "fastserve_state": VERSION,
        "models": {name: _entry(model) for name, model in sorted(models.items())},
        "labels": {
            model: {label: {str(v): w for v, w in sorted(to.items())} for label, to in sorted(given.items())}
            for model, given in sorted(labels.items())
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _entry(model: SavedModel) -> dict[str, Any]:
    entry: dict[str, Any] = {"loaded": model.loaded}
    if model.config is not None:
        entry["config"] = model.config
    if model.from_files:
        entry["from_files"] = True
    return entry


# --- reading: ValueError says what is wrong


def _read(path: Path) -> tuple[dict[str, SavedModel], Assigned]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return {}, {}
    if len(content) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({str(error)[:120]})") from None
    if not isinstance(document, dict) or "fastserve_state" not in document:
        raise ValueError("is no state file of fastserve")
    if document["fastserve_state"] != VERSION:
        raise ValueError(f"fastserve_state: got {str(document['fastserve_state'])[:32]}, want {VERSION}")
    return dict(_models(document.get("models"))), dict(_labels(document.get("labels")))


def _models(given: Any) -> Iterator[tuple[str, SavedModel]]:
    for name, entry in _object("models", given).items():
        where = f"models[{name[:64]!r}]"
        if wrong := name_error(name):
            raise ValueError(f"{where}: {wrong}")
        values = _object(where, entry)
        loaded, config, files = values.get("loaded"), values.get("config"), values.get("from_files", False)
        if not isinstance(loaded, bool) or not isinstance(files, bool) or not isinstance(config, str | None):
            raise ValueError(
                f"{where}: want loaded (true or false), config (a text), from_files (true or false)"
            )
        yield name, SavedModel(loaded, config, files)


def _labels(given: Any) -> Iterator[tuple[str, dict[str, dict[int, float]]]]:
    for model, labels in _object("labels", given).items():
        where = f"labels[{model[:64]!r}]"
        read: dict[str, dict[int, float]] = {}
        for label, versions in _object(where, labels).items():
            read[label] = {}
            for version, weight in _object(f"{where}[{label[:64]!r}]", versions).items():
                if not (version.isascii() and version.isdigit() and len(version) <= 18):
                    raise ValueError(f"{where}[{label[:64]!r}]: got version {version[:32]!r}")
                if isinstance(weight, bool) or not isinstance(weight, int | float):
                    raise ValueError(
                        f"{where}[{label[:64]!r}][{version}]: got {str(weight)[:32]}, want a number"
                    )
                read[label][int(version)] = weight
        yield model, read


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: want an object")
    return value


def restore_labels(restore: Callable[[Assigned], None], labels: Assigned) -> None:
    """Model by model: what cannot be any more is reported and left out."""
    for model, given in labels.items():
        try:
            restore({model: given})
        except FastserveError as error:
            logger.error(
                "labels of %s, kept from before the restart: %s", model, error, extra={"model": model}
            )
