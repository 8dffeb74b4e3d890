"""Which model names and versions a path or a message may carry; the same rule for every front end."""

from __future__ import annotations

from fastserve.errors import InvalidArgument
from fastserve.label_text import is_label
from fastserve.lifecycle.model_config import name_error

MAX_ECHO_CHARS = 128  # of a client's text inside an error message


def check_model(name: str) -> str:
    """The name itself, or InvalidArgument that says what is wrong with it."""
    if problem := name_error(name):
        raise InvalidArgument(problem)
    return name


def check_version(version: str) -> str:
    """The version itself, a number or a label ("" = the model's choice), or InvalidArgument in Triton's words."""
    is_number = version.isascii() and version.isdigit() and len(version) <= 18 and int(version) > 0
    if version and not is_number and not is_label(version):
        raise InvalidArgument(
            f"failed to get model version from specified version string '{version[:MAX_ECHO_CHARS]}': "
            "version should be an integral value > 0"
        )
    return version
