"""A file that lists models, read again when it changes; or the one model that flags name.

A file that cannot be read or is broken: the first time an error, with file and line; later what it said before holds, the reason
is logged once and kept in `broken`. Any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle.listed.listing import MAX_LIST_BYTES, Listing
from fastserve.lifecycle.listed.models_yaml import read_models_yaml
from fastserve.lifecycle.listed.openvino import read_config_json
from fastserve.lifecycle.listed.tensorflow import read_model_config_list, single_model

logger = logging.getLogger("fastserve.lifecycle")

Kind = Literal["tensorflow", "openvino", "models", "flags"]

_READERS: dict[str, Callable[[str, str], Listing]] = {
    "tensorflow": read_model_config_list,
    "openvino": read_config_json,
    "models": read_models_yaml,
}

_Content = tuple[bytes, str]  # and why there is none


class ModelList:
    def __init__(self, kind: Kind, path: Path | None = None) -> None:
        self.kind = kind
        self.path = path
        self.broken = ""  # why the file as it is now cannot be used
        self._lock = threading.Lock()
        self._listing: Listing | None = None
        self._content: bytes | None = None  # of the listing
        self._looked_at: _Content | None = None  # at the last look

    @classmethod
    def single(cls, name: str, base_path: str) -> ModelList:
        """--model-name and --model-base-path."""
        made = cls("flags")
        made._listing = Listing((single_model(name, base_path, "--model-name"),))
        return made

    def listing(self) -> Listing:
        """As it was read last; the first time as `refresh`."""
        if self._listing is None:
            self.refresh()
        assert self._listing is not None
        return self._listing

    def refresh(self) -> None:
        """Reads the file now. Raises InvalidArgument, NotFound; then the listing is what it was."""
        if self.path is not None:
            with self._lock:
                self._take(self._read())

    def look_again(self) -> None:
        """Reads the file where two looks in a row found the same new content: never half of what is being written."""
        if self.path is not None:
            with self._lock:
                self._look_again()

    def _look_again(self) -> None:
        seen = self._read()
        if self._listing is None:
            self._take(seen)
            return
        same, self._looked_at = seen == self._looked_at, seen
        if seen == (self._content, ""):
            self.broken = ""
        elif same:
            try:
                self._take(seen)
            except (InvalidArgument, NotFound) as error:
                if str(error) != self.broken:
                    logger.error("%s; going on with what it said before", error)
                self.broken = str(error)

    def _take(self, seen: _Content) -> None:
        content, why = seen
        if why:
            raise (NotFound if "does not exist" in why else InvalidArgument)(f"{self.path}: {why}")
        if content == self._content:
            self.broken = ""
            return
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise InvalidArgument(f"{self.path}:{line}: is not UTF-8 text") from None
        listing = _READERS[self.kind](text, str(self.path))
        for note in listing.notes:
            logger.info("%s: %s", self.path, note)
        self._listing, self._content, self.broken = listing, content, ""

    def _read(self) -> _Content:
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_LIST_BYTES + 1)
        except FileNotFoundError:
            return b"", "does not exist"
        except OSError as error:
            return b"", f"cannot be read: {error.strerror or error}"
        if len(content) > MAX_LIST_BYTES:
            return b"", f"has more than {MAX_LIST_BYTES} bytes, which is the most that is read"
        return content, ""


def lists_of(
    *,
    models_file: Path | None = None,
    model_config_file: Path | None = None,
    ovms_config_file: Path | None = None,
    model_name: str | None = None,
    model_base_path: str | None = None,
) -> tuple[ModelList, ...]:
    """Of the flags of these names. Reads nothing. Raises InvalidArgument."""
    found = []
    if models_file is not None:
        found.append(ModelList("models", models_file))
    if model_config_file is not None:
        found.append(ModelList("tensorflow", model_config_file))
    if ovms_config_file is not None:
        found.append(ModelList("openvino", ovms_config_file))
    if model_name is not None and model_base_path is None:
        raise InvalidArgument("--model-name needs --model-base-path as well")
    if model_base_path is not None:
        if model_config_file is not None:
            raise InvalidArgument("--model-base-path is given beside --model-config-file: want one of them")
        found.append(ModelList.single(model_name or "default", model_base_path))
    return tuple(found)
