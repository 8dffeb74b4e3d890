"""Which model names and versions a path or a message may carry; the same rule for every front end.

Starts from an allow-list, so that traversal, control characters and encodings are no cases of their own.
"""

from __future__ import annotations

import re

from fastserve.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_ECHO_CHARS = 128


def check_model(name: str) -> str:
    """The name itself, or InvalidArgument that says what is wrong with it."""
    if not _NAME.fullmatch(name) or not name.strip("."):
        shown = name if len(name) <= MAX_ECHO_CHARS else name[:MAX_ECHO_CHARS] + "…"
        raise InvalidArgument(
            f"model name {shown!r}: want 1 to 128 of the characters A-Z a-z 0-9 . _ -, and not only dots"
        )
    return name


def check_version(version: str) -> str:
    """The version itself ("" = the highest ready one), or InvalidArgument in Triton's words."""
    if version and not (version.isascii() and version.isdigit() and len(version) <= 18 and int(version) > 0):
        shown = version if len(version) <= MAX_ECHO_CHARS else version[:MAX_ECHO_CHARS] + "…"
        raise InvalidArgument(
            f"failed to get model version from specified version string {shown!r}: version should be an integral "
            "value > 0"
        )
    return version
