"""Mirror against a real S3 server in a process of its own (moto)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.s3_server import S3Server

from fastserve import errors
from fastserve.lifecycle.remote import Mirror
from fastserve.lifecycle.remote.listing import Listed
from fastserve.lifecycle.remote.store import FsspecStore

Make = Callable[..., Mirror]


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """A place in the bucket for one test."""
    return f"{request.node.name.partition('[')[0]}-{os.urandom(3).hex()}"


def url(prefix: str) -> str:
    return f"s3://{S3Server.BUCKET}/{prefix}"


def test_what_moto_gives_is_what_a_mirror_needs(s3: S3Server, prefix: str) -> None:
    s3.put(f"{prefix}/digits/1/model.bin", b"0123456789")
    store = FsspecStore(url(prefix))
    (file,) = store.find()
    assert (file.name, file.size) == ("digits/1/model.bin", 10)
    assert file.md5 == file.mark == "781e5e245d69b566979b86e28d23f2c7"  # its ETag
    assert file.changed is not None
    assert abs(file.changed - time.time()) < 60
    assert store.read("digits/1/model.bin", 3, 6) == b"345"
    assert store.names() == ["digits"]


def test_versions_come_and_go(s3: S3Server, prefix: str, make_mirror: Make) -> None:
    s3.put(f"{prefix}/digits/config.pbtxt", b'backend: "identity"\n')
    s3.put(f"{prefix}/digits/1/weights.bin", b"one")
    mirror = make_mirror()
    mirror.update(url(prefix))
    folder = mirror.local(url(prefix)) / "digits"
    assert sorted(os.listdir(folder)) == ["1", "config.pbtxt"]
    s3.put(f"{prefix}/digits/2/weights.bin", b"two")
    mirror.update(url(prefix))
    assert sorted(os.listdir(folder)) == ["2", "config.pbtxt"]
    assert (folder / "2" / "weights.bin").read_bytes() == b"two"
    s3.delete(f"{prefix}/digits/2/weights.bin")
    mirror.update(url(prefix))
    assert sorted(os.listdir(folder)) == ["1", "config.pbtxt"]
    assert mirror.figures.downloaded_versions == 2  # the first was here still


def test_a_version_without_manifest_has_to_rest(s3: S3Server, prefix: str, make_mirror: Make) -> None:
    s3.put(f"{prefix}/digits/1/a.bin", b"a")
    mirror = make_mirror(settle_s=3600.0)
    slept: list[float] = []

    def upload_goes_on(seconds: float) -> None:
        slept.append(seconds)
        s3.put(f"{prefix}/digits/1/b.bin", b"b")

    mirror._sleep = upload_goes_on
    mirror.update(url(prefix))
    assert slept == [3600.0]
    assert "changes in the store" in mirror.problems(url(prefix))[0].message
    mirror._sleep = slept.append
    mirror.update(url(prefix))
    assert sorted(os.listdir(mirror.local(url(prefix)) / "digits" / "1")) == ["a.bin", "b.bin"]
    mirror.update(url(prefix))
    assert len(slept) == 2  # what is here needs no rest


def test_md5_of_the_etag_is_checked(s3: S3Server, prefix: str, make_mirror: Make) -> None:
    s3.put(f"{prefix}/digits/1/weights.bin", b"0123456789")
    mirror = make_mirror()
    store = FsspecStore(url(prefix))
    read = FsspecStore.read

    class Spoiling(FsspecStore):
        def read(self, name: str, start: int, stop: int) -> bytes:
            data = read(self, name, start, stop)
            return b"X" + data[1:] if name.endswith(".bin") else data

    mirror._make_store = lambda address, settings: Spoiling(address)
    with pytest.raises(errors.InvalidArgument, match=r"corrupt: md5 is .*want 781e5e245d69"):
        _raise_first_problem(mirror, url(prefix))
    assert store.md5_counts(Listed("digits/1/weights.bin", 10))


def _raise_first_problem(mirror: Mirror, address: str) -> None:
    mirror.update(address)
    for problem in mirror.problems(address):
        raise errors.InvalidArgument(problem.message)


def test_the_etag_of_an_object_that_is_encrypted_with_a_key_is_no_checksum(
    s3: S3Server, prefix: str, make_mirror: Make
) -> None:
    s3.client().put_object(
        Bucket=s3.BUCKET, Key=f"{prefix}/digits/1/weights.bin", Body=b"0123", ServerSideEncryption="aws:kms"
    )
    assert not FsspecStore(url(prefix)).md5_counts(Listed("digits/1/weights.bin", 4))
    mirror = make_mirror()
    mirror.update(url(prefix))
    assert mirror.problems(url(prefix)) == []


def test_a_bucket_that_is_not_there(s3: S3Server, make_mirror: Make) -> None:
    with pytest.raises(errors.NotFound, match="s3://nobucket/models"):
        make_mirror().update("s3://nobucket/models")


def test_without_credentials(
    s3: S3Server, make_mirror: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(errors.FastserveError, match=r"(?i)credentials"):
        make_mirror().update("s3://bucket/models")


def test_the_server_dies_in_the_middle(
    tmp_path: Path, make_mirror: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloads, kills the server with half of the file here, starts it anew: the rest is downloaded, not the whole."""
    data = os.urandom(4 << 20)
    with S3Server(tmp_path) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.put("models/digits/1/weights.bin", data)
        mirror = make_mirror(range_bytes=64 << 10, parallel=2)
        read = FsspecStore.read

        class Dying(FsspecStore):
            def read(self, name: str, start: int, stop: int) -> bytes:
                if start >= len(data) // 2:
                    s3.kill()
                return read(self, name, start, stop)

        mirror._make_store = lambda address, settings: Dying(address, settings.patience)
        with pytest.raises(errors.Unavailable, match="s3://bucket/models"):
            mirror.update("s3://bucket/models")
        assert not (mirror.local("s3://bucket/models") / "digits").exists()
        s3.start()
        s3.put("models/digits/1/weights.bin", data)
        again = make_mirror(range_bytes=64 << 10, parallel=2)
        again.update("s3://bucket/models")
        shown = again.local("s3://bucket/models") / "digits" / "1" / "weights.bin"
        assert shown.read_bytes() == data
        assert 0 < again.figures.downloaded_bytes <= len(data) // 2 + 3 * (64 << 10)


DOWNLOADER = """
import sys
from pathlib import Path
from fastserve.lifecycle.remote import Mirror, MirrorSettings
Mirror(MirrorSettings(cache_dir=Path(sys.argv[1]), settle_s=0, range_bytes=64 << 10)).update(sys.argv[2])
"""


def test_a_downloader_is_killed_and_another_goes_on(s3: S3Server, prefix: str, make_mirror: Make) -> None:
    data = os.urandom(24 << 20)
    s3.put(f"{prefix}/digits/1/weights.bin", data)
    mirror = make_mirror(range_bytes=64 << 10)
    root = mirror.local(url(prefix))
    command = [sys.executable, "-c", DOWNLOADER, str(root.parent), url(prefix)]
    process = subprocess.Popen(command)
    until = time.monotonic() + 60

    def ranges() -> int:
        return sum(
            len(path.read_text().split()) for path in root.glob(".partial/digits/*/.weights.bin.ranges")
        )

    while ranges() < 10 and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (root / "digits").exists()
    mirror.update(url(prefix))
    assert (root / "digits" / "1" / "weights.bin").read_bytes() == data
    assert mirror.figures.downloaded_bytes < len(data)
    assert list((root / ".partial" / "digits").iterdir()) == []


def test_two_processes_share_a_cache(s3: S3Server, prefix: str, make_mirror: Make) -> None:
    data = os.urandom(4 << 20)
    s3.put(f"{prefix}/digits/1/weights.bin", data)
    mirror = make_mirror()
    root = mirror.local(url(prefix))
    command = [sys.executable, "-c", DOWNLOADER, str(root.parent), url(prefix)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    thread = threading.Thread(target=mirror.update, args=(url(prefix),))
    thread.start()
    assert [process.wait(60) for process in processes] == [0, 0]
    thread.join()
    assert (root / "digits" / "1" / "weights.bin").read_bytes() == data
    assert len(list((root / ".data" / "digits").iterdir())) == 1
