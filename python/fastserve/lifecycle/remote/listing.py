"""What a store has, sorted into models and versions. Pure: no store is asked here, nothing is written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.manifest import MANIFEST_FILE, Entry, name_problem
from fastserve.lifecycle.model_config import name_error
from fastserve.lifecycle.warm_up_files import FOLDER as WARM_UP

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


@dataclass(frozen=True, order=True)
class Listed:
    """A file of a store. `name`: relative, with `/`; `size` in bytes; `mark`: changes with the content (ETag, generation,
    time); `md5`, `sha256`: hex, "" where the store does not say; `changed`: seconds since 1970, None: not said."""

    name: str
    size: int
    mark: str = ""
    md5: str = ""
    sha256: str = ""
    changed: float | None = None


@dataclass(frozen=True)
class Part:
    """Files that come and go together: those of a version, or those beside the versions (`version` 0)."""

    model: str
    version: int
    files: tuple[Listed, ...] = ()  # named relative to the part's folder, sorted

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def folder(self) -> str:
        """Its name in the cache: another one for other content."""
        text = "\n".join(f"{file.name}\0{file.size}\0{file.mark}" for file in self.files)
        digest = hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
        return f"{self.version or 'config'}-{digest}"

    @property
    def where(self) -> str:
        return f"{self.model}/{self.version}/" if self.version else f"{self.model}/"

    @property
    def changed(self) -> float | None:
        """When the last of its files came; None: the store does not say it of all."""
        times = [file.changed for file in self.files]
        return None if None in times else max((t for t in times if t is not None), default=None)

    def file(self, name: str) -> Listed | None:
        return next((file for file in self.files if file.name == name), None)


@dataclass
class Model:
    name: str
    beside: Part  # configuration, labels, data for warm-up
    versions: dict[int, Part] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def sort_files(files: Iterable[Listed], names: Collection[str] | None = None) -> dict[str, Model]:
    """Of `names` alone, where given. Hidden files and what lies outside of models and versions is left out; a name that is
    not safe is a problem of its model, whose file is left out."""
    parts: dict[tuple[str, int], list[Listed]] = {}
    problems: dict[str, list[str]] = {}
    for file in files:
        segments = file.name.split("/")
        model = segments[0]
        if (
            len(segments) < 2
            or name_error(model)
            or model.startswith(".")
            or (names is not None and model not in names)
        ):
            continue
        if ".." not in segments and any(segment.startswith(".") for segment in segments):
            continue
        if wrong := name_problem("/".join(segments[1:])):
            problems.setdefault(model, []).append(f"'{file.name[:200]}' is not taken: {wrong}")
            continue
        version = int(segments[1]) if len(segments) > 2 and _VERSION.fullmatch(segments[1]) else 0
        if version == 0 and len(segments) > 2 and segments[1] != WARM_UP:
            continue
        inner = "/".join(segments[2 if version else 1 :])
        parts.setdefault((model, version), []).append(
            Listed(inner, file.size, file.mark, file.md5, file.sha256, file.changed)
        )
    models: dict[str, Model] = {}
    for name in sorted({model for model, _ in parts} | set(problems)):
        models[name] = Model(name, Part(name, 0), problems=problems.get(name, []))
    for (name, version), listed in sorted(parts.items()):
        part = Part(name, version, tuple(sorted(listed)))
        if version:
            models[name].versions[version] = part
        else:
            models[name].beside = part
    return models


def with_manifest(part: Part, entries: dict[str, Entry]) -> Part:
    """Only what the manifest names, with its checksums. Raises InvalidArgument: not all of it is there as it says."""
    files = [file for file in part.files if file.name == MANIFEST_FILE]
    for name, entry in entries.items():
        file = part.file(name)
        if file is None:
            raise InvalidArgument(f"incomplete: {MANIFEST_FILE} names '{name}', which is not there (yet)")
        if entry.size is not None and entry.size != file.size:
            raise InvalidArgument(
                f"incomplete: '{name}' has {file.size} bytes, {MANIFEST_FILE} says {entry.size}"
            )
        if file.name != MANIFEST_FILE:
            files.append(
                Listed(name, file.size, file.mark, file.md5, entry.sha256 or file.sha256, file.changed)
            )
    return Part(part.model, part.version, tuple(sorted(files)))


def limit_problem(part: Part, max_files: int, max_bytes: int) -> str:
    """Why a part is too large to be taken; "": it is not."""
    if len(part.files) > max_files:
        return f"{part.where} has {len(part.files)} files, at most {max_files} are taken (max_version_files)"
    if part.bytes > max_bytes:
        return f"{part.where} has {part.bytes} bytes, at most {max_bytes} are taken (max_version_bytes)"
    return ""
