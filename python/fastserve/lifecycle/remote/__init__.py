"""Remote repositories: s3://, gs://, az://, http(s):// -> a folder that is scanned like any repository. README.md has more."""

from fastserve.lifecycle.remote.mirror import Mirror
from fastserve.lifecycle.remote.settings import MirrorSettings, default_cache_dir
from fastserve.lifecycle.remote.urls import is_remote, redacted

__all__ = ["Mirror", "MirrorSettings", "default_cache_dir", "is_remote", "redacted"]
