"""Names of remote repositories: which protocols there are, and what of a name may be shown."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from urllib.parse import urlsplit

from fastserve.errors import FailedPrecondition, InvalidArgument

# protocol -> the package that speaks it, and our extra that brings it
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "abfss": ("adlfs", "azure"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
}

_USER = re.compile(r"(?<=://)[^/\s@'\"]+@")
_QUERY = re.compile(r"(://[^\s?'\"<>]*)\?[^\s'\"<>)]*")
_PARAMETER = re.compile(
    r"(?i)\b((?:X-Amz-|X-Goog-)?(?:Signature|Credential|Security-Token)|sig|AWSAccessKeyId|AccountKey)=[^&\s'\"]+"
)


def is_remote(name: object) -> bool:
    """Whether a repository's name is a URL, and not a folder."""
    return "://" in str(name)


def protocol_of(url: str) -> str:
    """Raises InvalidArgument for one that is not known, FailedPrecondition where its package is missing."""
    protocol = url.partition("://")[0].lower()
    if protocol not in _PACKAGES:
        known = ", ".join(f"{name}://" for name in _PACKAGES)
        raise InvalidArgument(
            f"model repository '{redacted(url)}': protocol '{protocol}' is not one of {known}"
        )
    package, extra = _PACKAGES[protocol]
    if any(importlib.util.find_spec(name) is None for name in ("fsspec", package)):
        raise FailedPrecondition(
            f"model repository '{redacted(url)}' needs the package {package}: pip install 'fastserve[{extra}]'"
        )
    return protocol


def redacted(text: object) -> str:
    """Without passwords and signatures: what stands before `@` and behind `?` of every URL in it, and keys of stores."""
    return _PARAMETER.sub(r"\1=***", _QUERY.sub(r"\1?***", _USER.sub("***@", str(text))))


def cache_name(url: str) -> str:
    """The folder of a repository in the cache: readable, and never the same for two places. A new password or signature
    does not make it another one."""
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    words = re.sub(r"[^A-Za-z0-9.-]+", "_", place.replace("://", "_")).strip("_.-")[:80]
    return f"{words}-{hashlib.blake2b(place.encode(), digest_size=8).hexdigest()}"
