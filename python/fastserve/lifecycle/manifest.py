"""Checksums beside the files that they are of: `fastserve-manifest.json` (ours) or `SHA256SUMS` (sha256sum's).

    {"files": {"model.onnx": {"size": 1043, "sha256": "9f86d0..."}, "data/vocabulary.txt": {"size": 12}}}

Names are relative to the folder of the manifest, with `/`. `size` in bytes; either of size and sha256 may be left out. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastserve.errors import InvalidArgument

MANIFEST_FILE = "fastserve-manifest.json"
SUMS_FILE = "SHA256SUMS"
MANIFEST_FILES = (MANIFEST_FILE, SUMS_FILE)

MAX_MANIFEST_BYTES = 16 << 20
MAX_DEPTH = 16  # folders of a name
MAX_SEGMENT = 200  # characters between two slashes

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=,~-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SUMS_LINE = re.compile(r"(\\?)([0-9A-Fa-f]{64}) [ *](.+)")


@dataclass(frozen=True)
class Entry:
    """What a file has to be. `size` in bytes, None: any; `sha256` hex, "": any."""

    size: int | None = None
    sha256: str = ""


def name_problem(name: str) -> str:
    """What is wrong with a file's relative name; "" when it stays where it should. No "..", nothing absolute or hidden, no
    character that means something to a shell or a terminal."""
    segments = name.split("/")
    if len(segments) > MAX_DEPTH:
        return f"more than {MAX_DEPTH} folders deep"
    for segment in segments:
        if not _SEGMENT.fullmatch(segment):
            return f"'{segment[:40]}' is not made of A-Z a-z 0-9 . _ + @ = , ~ - (and no dot or dash at its start)"
        if len(segment) > MAX_SEGMENT:
            return f"a part of it has {len(segment)} characters, at most {MAX_SEGMENT} are taken"
    return ""


def parse_manifest(text: str | bytes) -> dict[str, Entry]:
    """Raises InvalidArgument: what is wrong, with the key."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"is not JSON: {error}") from None
    files = document.get("files") if isinstance(document, dict) else None
    if not isinstance(files, dict):
        raise InvalidArgument(
            'has no object "files": {"files": {"model.onnx": {"size": 1, "sha256": "..."}}}'
        )
    return {_checked_name(name): _entry(name, value) for name, value in files.items()}


def write_manifest(files: Mapping[str, Entry]) -> str:
    listed = {
        name: ({} if entry.size is None else {"size": entry.size})
        | ({"sha256": entry.sha256} if entry.sha256 else {})
        for name, entry in sorted(files.items())
    }
    return json.dumps({"files": listed}, indent=2) + "\n"


def parse_sums(text: str) -> dict[str, Entry]:
    """What `sha256sum FILE...` writes. Raises InvalidArgument with the line."""
    files = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _SUMS_LINE.fullmatch(line)
        if found is None or found[1]:
            raise InvalidArgument(f"line {number} is not 'SHA256  NAME' as sha256sum writes it")
        files[_checked_name(found[3].removeprefix("./"))] = Entry(sha256=found[2].lower())
    if not files:
        raise InvalidArgument("names no file")
    return files


def _checked_name(name: str) -> str:
    if wrong := name_problem(name):
        raise InvalidArgument(f"files[{json.dumps(name[:200])}]: {wrong}")
    return name


def _entry(name: str, value: Any) -> Entry:
    where = f"files[{json.dumps(name)}]"
    if not isinstance(value, dict):
        raise InvalidArgument(f'{where}: got {json.dumps(value)[:40]}, want {{"size": 1, "sha256": "..."}}')
    size, sha256 = value.get("size"), value.get("sha256", "")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise InvalidArgument(f"{where}.size: got {json.dumps(size)[:40]}, want a number of bytes")
    if not isinstance(sha256, str) or (sha256 and not _SHA256.fullmatch(sha256.lower())):
        raise InvalidArgument(f"{where}.sha256: got {json.dumps(sha256)[:40]}, want 64 hexadecimal digits")
    return Entry(size, sha256.lower())
