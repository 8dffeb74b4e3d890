"""A repository on a web server, which cannot list what it has: `fastserve-manifest.json` at its top names every file,

    {"files": {"digits/config.pbtxt": {"size": 61, "sha256": "..."}, "digits/1/model.onnx": {"size": 1043, "sha256": "..."}}}

A file is downloaded again when its `sha256` is another one (without: when the server's ETag or time is). Without this file, the
pages of links that nginx, Apache and Python's http.server make of folders are followed, which costs a request a file.
What stands behind `?` in the repository's URL is sent with every request.
"""

from __future__ import annotations

import asyncio
import email.utils
import html
import re
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urljoin

from fastserve.errors import InvalidArgument, NotFound, ResourceExhausted
from fastserve.lifecycle.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    Entry,
    name_problem,
    parse_manifest,
)
from fastserve.lifecycle.remote.listing import Listed
from fastserve.lifecycle.remote.store import FsspecStore, NoRanges

MAX_FOLDERS = 20_000  # pages of links that are read
MAX_DEPTH = 8
MAX_PAGE_BYTES = 16 << 20
_PARALLEL = 16
_HREF = re.compile(r"""<a\s[^>]*?href\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_ETAG = re.compile(r'^(W/)?"?|"$')


class HttpStore(FsspecStore):
    def find(self, folder: str = "") -> list[Listed]:
        entries = self._index()
        if entries is None:
            names = self._follow(folder)
            sizes: dict[str, Entry] = {}
        else:
            names, sizes = [name for name in entries if name.startswith(folder)], entries
        found = {
            name: _from_index(name, entry)
            for name, entry in sizes.items()
            if entry.sha256 and entry.size is not None
        }
        missing = [name for name in names if name not in found]
        heads = self._ask(lambda fs: self._heads(fs, missing), f"list {self.shown}/{folder}")
        for name, head in zip(missing, heads, strict=True):
            found[name] = self._from_head(name, head, sizes.get(name, Entry()))
        return [found[name] for name in names]

    def names(self) -> list[str]:
        entries = self._index()
        if entries is not None:
            return sorted({name.partition("/")[0] for name in entries if "/" in name})
        return sorted(name.rstrip("/") for name in self._links("") if name.endswith("/"))

    def read(self, name: str, start: int, stop: int) -> bytes:
        url = self._path(name)

        async def ranged(fs: Any) -> bytes:
            session = await fs.set_session()
            headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
            async with session.get(fs.encode_url(url), headers=headers) as answer:
                if answer.status == 200 and (start > 0 or answer.content_length != stop):
                    raise NoRanges(f"{self.shown}/{name}: the server does not send parts of files")
                if answer.status == 416:
                    return b""
                fs._raise_not_found_for_status(answer, url)
                return bytes(await answer.read())

        return self._ask(ranged, f"read {self.shown}/{name}")

    def _path(self, name: str) -> str:
        base, mark, query = self.url.partition("?")
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def _options(self) -> dict[str, Any]:
        import aiohttp

        seconds = self.patience.request_timeout_s
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(10.0, seconds), sock_read=seconds)
        return super()._options() | {"client_kwargs": {"timeout": timeout}}

    def _index(self) -> dict[str, Entry] | None:
        try:
            what = f"read {self.shown}/{MANIFEST_FILE}"
            text = self._ask(lambda fs: fs._cat_file(self._path(MANIFEST_FILE)), what)
        except NotFound:
            return None
        try:
            if len(text) > MAX_MANIFEST_BYTES:
                raise InvalidArgument(f"has {len(text)} bytes, at most {MAX_MANIFEST_BYTES} are taken")
            return parse_manifest(text)
        except InvalidArgument as error:
            raise InvalidArgument(f"{self.shown}/{MANIFEST_FILE}: {error}") from None

    # --- without an index

    def _follow(self, folder: str) -> list[str]:
        """Names of the files below `folder`."""
        files: list[str] = []
        folders = [folder]
        pages = 0
        while folders:
            at = folders.pop()
            pages += 1
            if pages > MAX_FOLDERS:
                raise ResourceExhausted(
                    f"{self.shown} has more than {MAX_FOLDERS} folders: give it a {MANIFEST_FILE}"
                )
            for name in self._links(at):
                if not name.endswith("/"):
                    files.append(at + name)
                elif at.count("/") < MAX_DEPTH:
                    folders.append(at + name)
        return sorted(files)

    def _links(self, folder: str) -> list[str]:
        """Names right below `folder`, folders with a slash behind; links to elsewhere and to ways of sorting are left out."""
        page = self._path(folder)
        data = self._ask(lambda fs: fs._cat_file(page), f"list {self.shown}/{folder}")
        base = page.partition("?")[0]
        names = set()
        for found in _HREF.finditer(bytes(data)[:MAX_PAGE_BYTES].decode("utf-8", "replace")):
            link = urljoin(base, html.unescape(found[1] or found[2]))
            inner = unquote(link.partition("#")[0].removeprefix(base))
            if link.startswith(base) and not name_problem(inner.rstrip("/")) and "/" not in inner[:-1]:
                names.add(inner)
        return sorted(names)

    async def _heads(self, fs: Any, names: list[str]) -> list[dict[str, Any]]:
        slots = asyncio.Semaphore(_PARALLEL)

        async def head(name: str) -> dict[str, Any]:
            async with slots:
                found: dict[str, Any] = await fs._info(self._path(name))
                return found

        return list(await asyncio.gather(*(head(name) for name in names)))

    def _from_head(self, name: str, head: dict[str, Any], entry: Entry) -> Listed:
        size = entry.size if entry.size is not None else head.get("size")
        if size is None:
            raise InvalidArgument(
                f"{self.shown}/{name}: the server does not say its size: name it in {MANIFEST_FILE}"
            )
        when = email.utils.parsedate_to_datetime(head["Last-Modified"]) if "Last-Modified" in head else None
        mark = entry.sha256 or _ETAG.sub("", head.get("ETag", "")) or head.get("Last-Modified", "")
        return replace(
            _from_index(name, entry), size=int(size), mark=mark, changed=when.timestamp() if when else None
        )


def _from_index(name: str, entry: Entry) -> Listed:
    return Listed(name, entry.size or 0, entry.sha256, sha256=entry.sha256)
