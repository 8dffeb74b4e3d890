"""Stores and mirrors: a web server of our own, whose faults can be chosen, and moto's S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.file_server import FileServer
from tests.support.s3_server import S3Server

from fastserve.lifecycle.remote import Mirror, MirrorSettings
from fastserve.lifecycle.remote.store import Patience

QUICK = Patience(request_timeout_s=5.0, attempts=2, backoff_s=0.01)
IDENTITY = b'backend: "identity"\n'


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer() as server:
        yield server


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    return s3_process


@pytest.fixture
def make_mirror(tmp_path: Path) -> Iterator[Callable[..., Mirror]]:
    """mirror = make_mirror(range_bytes=..): never waits for anything to settle unless told so; all share one cache."""
    made: list[Mirror] = []

    def make(now: Callable[[], float] | None = None, **settings: object) -> Mirror:
        values = {"cache_dir": tmp_path / "cache", "patience": QUICK, "settle_s": 0.0, **settings}
        in_use = values.pop("in_use", None)
        mirror = Mirror(MirrorSettings(**values), in_use=in_use, **({"now": now} if now else {}))  # type: ignore[arg-type]
        made.append(mirror)
        return mirror

    yield make
    for mirror in made:
        mirror.close()
