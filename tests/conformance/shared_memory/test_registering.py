"""What may be registered as shared memory, and how much of it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from client_memory import (
    MAX_MESSAGE_BYTES,
    MOST_BYTES,
    MOST_REGIONS,
    SHM,
    U64,
    created,
    key_of,
    refused,
    regions,
    registered,
    shared_input,
    shm,
)
from running_server import RunningServer
from tritonclient.utils import serialize_byte_tensor

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


LONG = "k" * 254
KEYS = [
    *("", "/", "//", "///", ".", "..", "/.", "/..", "./", "../", "/./", "/../"),
    *(
        "//{0}",
        "/{0}/",
        "{0}/",
        "/./{0}",
        "/../shm/{0}",
        "../shm/{0}",
        "/shm/{0}",
        "/dev/shm/{0}",
        "dev/shm/{0}",
    ),
    *("/../../etc/passwd", "../../etc/passwd", "/etc/passwd", "etc/passwd", "/proc/self/mem", "/a/b", "a/b"),
    *("/{0}\x00", "\x00", "/\x00{0}", "/{0}\n", "/{0}\r\n", "/\t{0}", "/{0}\x7f", "/\x1b[2J"),
    *("/" + LONG + "k", LONG + "kk", "k" * 300, "/" + "k" * 5000),
    *(
        "/triton_python_backend_shm_region_",
        "/triton_python_backend_shm_region_1",
        "triton_python_backend_shm_region_x",
    ),
    *("/fastserve_", "fastserve_x", "/sem.x", "sem.x"),
    *(
        "/%2e%2e/{0}",
        "/%2F{0}",
        "/{0}%00",
        "/..%2f{0}",
        "/ {0}",
        "/{0} ",
        "/nobody-made-this",
        "nobody",
        "/ä",
    ),
    *("/" + LONG, "~/x", "/~root", "/*", "/?", "/$HOME", "/{0}x", "/.{0}", "/..{0}"),
]


def test_keys_are_confined(either: Any) -> None:
    """Every one is refused, with a short text that shows no path of the server and writes no control character."""
    assert len(KEYS) >= 60
    with created("key", 64):
        name = key_of("key")[1:]
        for key in KEYS:
            with refused(either, "INVALID_ARGUMENT"):
                either.call("register_system_shared_memory", "r", key.format(name), 64)
        either.call("register_system_shared_memory", "r", name, 64)  # without the slash, as shm_open takes it
    assert set(regions(either)) == {"r"}


def test_links_and_other_files_are_no_objects(either: Any) -> None:
    secret = SHM / key_of("target")[1:]
    link, fifo = SHM / key_of("link")[1:], SHM / key_of("fifo")[1:]
    secret.write_bytes(b"x" * 64)
    link.symlink_to(secret)
    os.mkfifo(fifo)
    try:
        for path in (link, fifo):
            with refused(either, "INVALID_ARGUMENT", f"Unable to open shared memory region: '/{path.name}'"):
                either.call("register_system_shared_memory", "r", "/" + path.name, 64)
    finally:
        for path in (link, fifo, secret):
            path.unlink()


@pytest.mark.parametrize(
    ("size", "offset", "words"),
    [
        (0, 0, "byte_size: got 0, want 1 or more"),
        (101, 0, "offset + byte_size: got 101, want 100 or less, the size of the object"),
        (100, 1, "offset + byte_size: got 101"),
        (1, 100, "offset + byte_size: got 101"),
        (1, U64 - 1, "offset + byte_size: got 18446744073709551615"),
        (1, U64, "Integer overflow detected: "),
        (2, U64 - 1, "Integer overflow detected: "),
    ],
)
def test_sizes_are_the_objects_at_most(either: Any, size: int, offset: int, words: str) -> None:
    with created("size", 100):
        with refused(either, "INVALID_ARGUMENT", words):
            either.call("register_system_shared_memory", "r", key_of("size"), size, offset)
        either.call("register_system_shared_memory", "r", key_of("size"), 100)


def test_names_have_a_limit(either: Any) -> None:
    with created("name", 64):
        for length in (255, 256, 257):
            if length <= 256:
                either.call("register_system_shared_memory", "n" * length, key_of("name"), 64)
                continue
            with refused(either, "INVALID_ARGUMENT", "name: got 257 bytes, want 256 or fewer"):
                either.call("register_system_shared_memory", "n" * length, key_of("name"), 64)


def test_the_number_of_regions_has_a_limit(either: Any, own_server: RunningServer) -> None:
    with created("many", 64):
        for number in range(MOST_REGIONS):
            either.call("register_system_shared_memory", f"r{number}", key_of("many"), 64)
        assert own_server.scrape()["fastserve_shared_memory_regions"] == MOST_REGIONS
        with refused(either, "RESOURCE_EXHAUSTED", f"{MOST_REGIONS} regions are registered or in use"):
            either.call("register_system_shared_memory", "more", key_of("many"), 64)
        either.call("unregister_system_shared_memory", "r0")
        either.call("register_system_shared_memory", "more", key_of("many"), 64)


def test_their_bytes_have_a_limit(either: Any, own_server: RunningServer) -> None:
    with created("bytes", MOST_BYTES + 1):
        for size in (MOST_BYTES - 1, MOST_BYTES):
            either.call("register_system_shared_memory", "r", key_of("bytes"), size)
            assert own_server.scrape()["fastserve_shared_memory_bytes"] == size
            either.call("unregister_system_shared_memory", "r")
        with refused(either, "RESOURCE_EXHAUSTED", f"byte_size: got {MOST_BYTES + 1}"):
            either.call("register_system_shared_memory", "r", key_of("bytes"), MOST_BYTES + 1)


def test_strings_are_copied_up_to_the_message_limit(either: Any) -> None:
    for size in (MAX_MESSAGE_BYTES - 1, MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1):
        with registered(either, f"text{size}", size) as memory:
            text = serialize_byte_tensor(np.array([[b"x" * (size - 4 * 8), b"", b"", b""]], dtype=object))
            rest = serialize_byte_tensor(np.array([[b"", b"", b"", b""]], dtype=object))
            shm.set_shared_memory_region(memory, [text, rest])
            place = f"text{size}"
            inputs = [
                shared_input(either, "INPUT0", [1, 4], "BYTES", place, size - 16),
                shared_input(either, "INPUT1", [1, 4], "BYTES", place, 16, size - 16),
            ]
            outputs = [either.module.InferRequestedOutput("OUTPUT1")]
            if size <= MAX_MESSAGE_BYTES:
                either.call("infer", "simple_string", inputs, outputs=outputs)
            else:
                with refused(
                    either, "RESOURCE_EXHAUSTED", "want BYTES inputs of 65536 bytes or fewer together"
                ):
                    either.call("infer", "simple_string", inputs, outputs=outputs)
        either.call("unregister_system_shared_memory")
