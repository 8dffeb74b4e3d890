"""What a load by request may bring along instead of what the repository has: a configuration, and files.

Triton's contract: `config` alone replaces the configuration, and the repository's versions are loaded with it; with `files`
({"1/model.onnx": bytes}) the model consists of these alone, and `config` is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastserve.errors import InvalidArgument
from fastserve.lifecycle.model_config import CONFIG_FILE
from fastserve.lifecycle.model_yaml import YAML_FILE

MAX_CONFIG_BYTES = 1 << 20
MAX_FILES = 256  # of one load: --load-files
MAX_PATH_BYTES = 1024
MAX_NAME_BYTES = 255  # of one folder or file
MAX_FOLDERS = 8  # that a file lies in

_SHOWN = 80  # of a path in messages


@dataclass(frozen=True)
class Override:
    config: str  # JSON of inference.ModelConfig
    files: Mapping[str, bytes] = field(default_factory=dict)  # path below the model's folder -> content


def check_override(override: Override, max_files: int = MAX_FILES) -> None:
    """Raises InvalidArgument: names the path and the limit."""
    size = len(override.config.encode("utf-8", "surrogatepass"))
    if size > MAX_CONFIG_BYTES:
        raise InvalidArgument(f"load parameter 'config': has {size} bytes, want at most {MAX_CONFIG_BYTES}")
    if not override.files:
        return
    if not override.config:
        raise InvalidArgument(
            f"load parameter 'config' is missing: it is required beside 'file:{next(iter(override.files))[:_SHOWN]}'"
        )
    if len(override.files) > max_files:
        raise InvalidArgument(
            f"load parameters 'file:': got {len(override.files)}, want at most {max_files} (--load-files)"
        )
    for path in override.files:
        if wrong := path_error(path):
            raise InvalidArgument(f"load parameter 'file:{path[:_SHOWN]}': {wrong}")
    _check_tree(override.files)


def path_error(path: str) -> str:
    """Of a path that comes from a client and is going to be created below a folder; "": a good one."""
    parts = path.split("/")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "is no UTF-8 text"
    if size > MAX_PATH_BYTES:
        return f"the path has {size} bytes, want at most {MAX_PATH_BYTES}"
    if "\0" in path or "\\" in path:
        return "the path has a character that no path may have (NUL or a backslash)"
    if any(part in ("", ".", "..") for part in parts):
        return "want a path below the model's folder: VERSION/NAME, without empty parts, '.' and '..'"
    if len(parts) - 1 > MAX_FOLDERS:
        return f"the path has {len(parts) - 1} folders, want at most {MAX_FOLDERS}"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"a name has more than {MAX_NAME_BYTES} bytes"
    if path in (CONFIG_FILE, YAML_FILE):
        return "the configuration goes into load parameter 'config'"
    return ""


def _check_tree(files: Mapping[str, bytes]) -> None:
    """No file may be another one's folder."""
    for path in files:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in files:
                raise InvalidArgument(
                    f"load parameter 'file:{path[:_SHOWN]}': 'file:{folder[:_SHOWN]}' is a file, no folder"
                )
