"""One remote repository, read through fsspec: what is there, and bytes of it. Blocking; any thread.

Every request has a time limit, and is tried again with growing pauses where that can help. Errors are FastserveErrors whose
text names the URL without secrets: NotFound, PermissionDenied, Unavailable. Credentials are found as the protocol's library
finds them (environment, its files, the machine's role); anonymous access too (`FSSPEC_S3_ANON=true`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib
import logging
import random
import re
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from fastserve.errors import (
    FastserveError,
    Internal,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from fastserve.lifecycle.remote.listing import Listed
from fastserve.lifecycle.remote.urls import protocol_of, redacted

logger = logging.getLogger("fastserve.remote")
T = TypeVar("T")

_MD5 = re.compile(r"[0-9a-f]{32}")
_OWN_RETRIES_OFF = 1  # of s3fs: tries, not retries
_LAST_BACKOFF_S = 10.0


@dataclass(frozen=True)
class Patience:
    """How long is waited for a store."""

    request_timeout_s: float = 60.0
    attempts: int = 5  # of one request
    backoff_s: float = 0.2  # before the second; doubles, with jitter


class NoRanges(Unimplemented):
    """The server sends whole files only."""


class Store(Protocol):
    """What a mirror needs of a store; names are relative to the repository."""

    def find(self, folder: str = "") -> list[Listed]:
        """Every file below `folder` ("digits/"), or of the whole repository."""

    def names(self) -> list[str]:
        """The folders at its top."""

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Those bytes; fewer where the file is shorter by now. NoRanges: the store cannot."""

    def fetch(self, name: str, path: str) -> None:
        """The whole file, for stores without ranges."""

    def md5_counts(self, file: Listed) -> bool:
        """Whether a file's `md5` is one of its content: asked when it does not match."""

    def stop(self) -> None:
        """Any thread: what runs ends soon, and nothing more is asked."""


class FsspecStore:
    """s3, gs, az: object stores that list what they have. http: see http_store."""

    def __init__(
        self, url: str, patience: Patience | None = None, sleep: Callable[[float], object] | None = None
    ) -> None:
        """Raises InvalidArgument and FailedPrecondition as protocol_of does."""
        self.protocol = protocol_of(url)
        self.url = url.rstrip("/")
        self.shown = redacted(self.url.partition("?")[0])
        self.patience = patience or Patience()
        self._stopped = threading.Event()
        self._sleep = sleep or self._stopped.wait
        self._fs: Any = None
        self._lock = threading.Lock()
        self._running: set[Future[Any]] = set()

    # --- Store

    def find(self, folder: str = "") -> list[Listed]:
        root = self._root()
        prefix = f"{root}/{folder}".rstrip("/")
        found = self._ask(lambda fs: fs._find(prefix, detail=True), f"list {self.shown}/{folder}")
        return [
            listed(path[len(root) + 1 :], entry)
            for path, entry in found.items()
            if _is_file(path, root, entry)
        ]

    def names(self) -> list[str]:
        root = self._root()
        found = self._ask(lambda fs: fs._ls(root, detail=True), f"list {self.shown}/")
        folders = (entry["name"].rstrip("/") for entry in found if entry.get("type") == "directory")
        return sorted(name.rpartition("/")[2] for name in folders)

    def read(self, name: str, start: int, stop: int) -> bytes:
        data = self._ask(
            lambda fs: fs._cat_file(self._path(name), start=start, end=stop), f"read {self.shown}/{name}"
        )
        return bytes(data)

    def fetch(self, name: str, path: str) -> None:
        self._ask(lambda fs: fs._get_file(self._path(name), path), f"read {self.shown}/{name}", hours=True)

    def md5_counts(self, file: Listed) -> bool:
        if self.protocol not in {"s3", "s3a"}:
            return True
        bucket, _, key = self._path(file.name).partition("/")
        head = self._ask(
            lambda fs: fs._call_s3("head_object", Bucket=bucket, Key=key), f"read {self.shown}/{file.name}"
        )
        # An ETag of 32 digits is the MD5 of the content unless the store encrypts with keys of its own or the client's.
        return not ("kms" in str(head.get("ServerSideEncryption", "")) or head.get("SSECustomerAlgorithm"))

    def stop(self) -> None:
        """Ends what runs, and refuses what comes: Unavailable."""
        with self._lock:
            self._stopped.set()
            running = list(self._running)
        for future in running:
            future.cancel()

    # --- the library below

    def _root(self) -> str:
        path: str = self._filesystem()._strip_protocol(self.url)
        return path.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root()}/{name}"

    def _filesystem(self) -> Any:
        if self._fs is None:
            fsspec = importlib.import_module("fsspec")
            try:
                self._fs = fsspec.filesystem(self.protocol, **self._options())
            except Exception as error:
                raise translated(error, f"open {self.shown}") from None
            if self.protocol in {"s3", "s3a"}:
                self._fs.retries = _OWN_RETRIES_OFF
        return self._fs

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
        if self.protocol in {"s3", "s3a"}:
            seconds = self.patience.request_timeout_s
            options["config_kwargs"] = {
                "connect_timeout": min(10.0, seconds),
                "read_timeout": seconds,
                "retries": {"total_max_attempts": 1},
            }
        return options

    def _ask(self, call: Callable[[Any], Coroutine[Any, Any, T]], what: str, *, hours: bool = False) -> T:
        """`call` makes the request, anew for every attempt; `hours`: it may take long. `what`: for errors."""
        fs = self._filesystem()
        limit = self.patience.request_timeout_s * (1440 if hours else 1)
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._run(fs, asyncio.wait_for(call(fs), limit))
            except Exception as error:
                wrong = translated(error, what)
                last = attempt == self.patience.attempts or self._stopped.is_set()
                if not isinstance(wrong, Unavailable) or last:
                    raise wrong from None
                pause = min(self.patience.backoff_s * 2 ** (attempt - 1), _LAST_BACKOFF_S) * random.uniform(
                    0.5, 1.0
                )
                logger.debug("%s; again in %.1f s", wrong, pause)
                self._sleep(pause)
        raise Internal("no attempt was made")

    def _run(self, fs: Any, request: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._stopped.is_set():
                request.close()
                raise Unavailable(f"{self.shown} is not asked any more: the server stops")
            future = asyncio.run_coroutine_threadsafe(request, fs.loop)
            self._running.add(future)
        try:
            return future.result()
        finally:
            with self._lock:
                self._running.discard(future)


def listed(name: str, entry: dict[str, Any]) -> Listed:
    """What a file system of fsspec says of a file."""
    etag = str(entry.get("ETag") or entry.get("etag") or "").strip('"')
    changed = _seconds(
        entry.get("LastModified") or entry.get("last_modified") or entry.get("updated") or entry.get("mtime")
    )
    mark = str(entry.get("generation") or etag or changed or "")
    return Listed(name, int(entry.get("size") or 0), mark, _md5(entry, etag), "", changed)


def translated(error: BaseException, what: str) -> FastserveError:
    """A library's exception as one of ours; Unavailable: trying again may help."""
    if isinstance(error, FastserveError):
        return error
    status = _status(error)
    text = redacted(f"cannot {what}: {_reason(error)}")
    if isinstance(error, PermissionError) or status in {401, 403}:
        return PermissionDenied(f"{text} (permission denied: look at the credentials)")
    if isinstance(error, FileNotFoundError) or status == 404:
        return NotFound(f"{redacted(f'cannot {what}')}: not found")
    if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"}:
        return Unauthenticated(f"{text} (no credentials found)")
    if isinstance(error, (ImportError, TypeError, ValueError, AttributeError)) and not isinstance(
        error, OSError
    ):
        return Internal(text)
    return Unavailable(text)


def _reason(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "the server stops"
    if isinstance(error, TimeoutError) or type(error).__name__ == "FSTimeoutError":
        return "no answer in time"
    return str(error).strip()[:400] or type(error).__name__


def _status(error: BaseException) -> int:
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
            return int(value)
    return 0


def _is_file(path: str, root: str, entry: dict[str, Any]) -> bool:
    # Object stores keep folders as empty objects whose names end with a slash.
    return path.startswith(f"{root}/") and entry.get("type", "file") == "file" and not path.endswith("/")


def _seconds(moment: object) -> float | None:
    if isinstance(moment, datetime):
        return moment.timestamp()
    if isinstance(moment, (int, float)):
        return float(moment)
    try:
        return datetime.fromisoformat(str(moment)).timestamp() if moment else None
    except ValueError:
        return None


def _md5(entry: dict[str, Any], etag: str) -> str:
    """Hex. S3: the ETag of an object that was not uploaded in parts; Google: md5Hash; Azure: content_md5."""
    if "ETag" in entry and _MD5.fullmatch(etag):
        return etag
    settings = entry.get("content_settings") or {}
    value = entry.get("md5Hash") or (settings.get("content_md5") if hasattr(settings, "get") else None)
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return ""
    return bytes(value).hex() if value and len(bytes(value)) == 16 else ""
