"""Where one model lies, and what a file that lists models says about it beside its own configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from fastserve.lifecycle.settings import Settings, VersionLabelMap, VersionPolicy


@dataclass(frozen=True)
class ListedModel:
    """One entry of a list. What is None or empty here, the model's own configuration says."""

    name: str
    base_path: str  # a folder with version folders, or one file: version 1; a URL, too
    where: str = field(default="", compare=False)  # the list's file
    line: int = field(default=0, compare=False)
    version_policy: VersionPolicy | None = None
    labels: VersionLabelMap = ()
    pinned: bool = False
    resource_preserving: bool = False
    max_batch_rows: int | None = None
    parameters: tuple[tuple[str, str], ...] = ()  # of backend openvino
    leading_zeros: bool = False  # version folders may be named 007
    any_file_name: bool = False  # resnet.xml is as good as model.xml
    notes: tuple[str, ...] = field(default=(), compare=False)

    def applied_to(self, settings: Settings) -> Settings:
        changed = settings
        if self.version_policy is not None:
            changed = replace(changed, version_policy=self.version_policy)
        if self.labels:
            changed = replace(changed, version_labels=self.labels)
        if self.max_batch_rows is not None:
            changed = replace(changed, max_batch_rows=self.max_batch_rows)
        if self.parameters:
            parameters = dict(changed.parameters) | dict(self.parameters)
            changed = replace(changed, parameters=tuple(sorted(parameters.items())))
        return changed


@dataclass(frozen=True)
class Place:
    """Of one model."""

    name: str
    root: Path  # resolved; links may not leave it
    path: Path  # the model's folder, or its only file
    source: str = ""  # the repository or list that it comes from, as it was given
    listed: ListedModel | None = None

    @property
    def shown(self) -> str:
        """In front of names of files in messages."""
        return self.name if self.listed is None else str(self.path)


def in_repository(root: Path, name: str, source: str = "") -> Place:
    return Place(name, root, root / name, source or str(root))
