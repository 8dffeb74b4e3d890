"""Mirror against an emulator of Google's storage, in a process of its own. Skipped where that package is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from fastserve.lifecycle.remote import Mirror

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("gcp_storage_emulator", "gcsfs")),
    reason="needs gcp-storage-emulator and gcsfs",
)

START = "from gcp_storage_emulator.__main__ import main; import sys; main(sys.argv[1:])"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--in-memory",
        "--default-bucket",
        "bucket",
    ]
    process = subprocess.Popen([sys.executable, "-c", START, *arguments], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("FSSPEC_GS_TOKEN", "anon")
        monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # its gRPC does not know emulators
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def put(emulator: str, name: str, data: bytes) -> None:
    url = f"{emulator}/upload/storage/v1/b/bucket/o?uploadType=media&name={name.replace('/', '%2F')}"
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["md5Hash"]


def test_versions_come_and_go(emulator: str, make_mirror: Callable[..., Mirror]) -> None:
    data = os.urandom(300_000)
    put(emulator, "models/digits/config.pbtxt", b'backend: "identity"\n')
    put(emulator, "models/digits/1/weights.bin", data)
    mirror = make_mirror(range_bytes=64 << 10)
    mirror.update("gs://bucket/models")
    folder = mirror.local("gs://bucket/models") / "digits"
    assert sorted(os.listdir(folder)) == ["1", "config.pbtxt"]
    assert (folder / "1" / "weights.bin").read_bytes() == data
    assert mirror.problems("gs://bucket/models") == []
    put(emulator, "models/digits/2/weights.bin", b"two")
    mirror.update("gs://bucket/models")
    assert sorted(os.listdir(folder)) == ["2", "config.pbtxt"]
    assert mirror.names("gs://bucket/models") == ["digits"]
