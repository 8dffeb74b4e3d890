"""Triton's system shared-memory extension, as tritonclient's own examples and utilities use it."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_repository import identity, mlp_answer, write_mlp
from running_server import RunningServer
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pkg_resources
    from tritonclient.utils import shared_memory as shm

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")

SHM = Path("/dev/shm")
PAGE = os.sysconf("SC_PAGE_SIZE")
KILLS = 20
SLOW_S = 0.3
IMAGE = 150_528  # floats: 602,112 bytes
MOST_REGIONS = 6
MOST_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 64 << 10
HTTP_OF = {
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 400,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
}


def write_add_sub(path: Path) -> None:
    """Triton's "simple" model: the sum and the difference of two rows of 16 INT32."""
    import onnx
    from onnx import TensorProto, helper

    def tensor(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", 16])

    inputs = ["INPUT0", "INPUT1"]
    nodes = [helper.make_node("Add", inputs, ["OUTPUT0"]), helper.make_node("Sub", inputs, ["OUTPUT1"])]
    graph = helper.make_graph(
        nodes, "simple", [tensor(n) for n in inputs], [tensor("OUTPUT0"), tensor("OUTPUT1")]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def write_models(models: Path) -> None:
    for name, write in (("simple", write_add_sub), ("mlp", write_mlp)):
        (models / name / "1").mkdir(parents=True)
        write(models / name / "1" / "model.onnx")
        (models / name / "config.pbtxt").write_text("max_batch_size: 8\n")
    identity(models, "simple_string", [("BYTES", [4]), ("BYTES", [4])], max_batch=8)
    identity(models, "slow", [("INT32", [-1])], max_batch=0, delay_s=SLOW_S)
    identity(models, "quick", [("INT32", [-1])], max_batch=0)
    identity(models, "image", [("FP32", [IMAGE])], max_batch=4)
    identity(models, "echo", [("INT32", [4]), ("INT32", [4])], max_batch=8)


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("shared_memory")
    write_models(folder / "models")
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    flags = ("--allow-client-shm", "--io-threads", threads, "--max-message-bytes", str(MAX_MESSAGE_BYTES))
    limits = ("--client-shm-regions", str(MOST_REGIONS), "--client-shm-bytes", str(MOST_BYTES))
    with RunningServer(folder / "models", folder, *flags, *limits) as running:
        yield running
        assert running.process.poll() is None, running.log()
        running.signal()
        assert running.wait() == 0, running.log()


@pytest.fixture(params=["grpc", "http", "grpc.aio", "http.aio"])
def own(request: pytest.FixtureRequest, own_server: RunningServer, client_class: Any) -> Iterator[Any]:
    yield from cleaned(client_class(request.param, own_server), own_server)


@pytest.fixture(params=["grpc", "http"])
def either(request: pytest.FixtureRequest, own_server: RunningServer, client_class: Any) -> Iterator[Any]:
    """For what does not depend on how a client waits."""
    yield from cleaned(client_class(request.param, own_server), own_server)


def cleaned(client: Any, server: RunningServer) -> Iterator[Any]:
    yield client
    client.call("unregister_system_shared_memory")
    client.close()
    scraped = server.scrape()
    assert scraped["fastserve_shared_memory_regions"] == 0
    assert scraped["fastserve_shared_memory_bytes"] == 0
    assert not mapped(server)


def mapped(server: RunningServer) -> list[str]:
    """Objects of these tests that the server's process has open or mapped."""
    process = Path(f"/proc/{server.process.pid}")
    found = [line for line in (process / "maps").read_text().splitlines() if "/dev/shm/fs-" in line]
    for fd in (process / "fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += [str(fd)] if "/dev/shm/fs-" in str(fd.readlink()) else []
    return found


def key_of(name: str) -> str:
    return f"/fs-conformance-{os.getpid()}-{name}"


@contextmanager
def created(name: str, byte_size: int) -> Iterator[Any]:
    """A region as tritonclient makes it: the handle."""
    handle = shm.create_shared_memory_region(name, key_of(name), byte_size)
    try:
        yield handle
    finally:
        shm.destroy_shared_memory_region(handle)


@contextmanager
def registered(client: Any, name: str, byte_size: int, offset: int = 0) -> Iterator[Any]:
    with created(name, byte_size + offset) as handle:
        client.call("register_system_shared_memory", name, key_of(name), byte_size, offset)
        yield handle


def shared_input(client: Any, name: str, shape: list[int], datatype: str, *place: Any) -> Any:
    tensor = client.module.InferInput(name, shape, datatype)
    tensor.set_shared_memory(*place)
    return tensor


def shared_output(client: Any, name: str, *place: Any) -> Any:
    output = client.module.InferRequestedOutput(name)
    output.set_shared_memory(*place)
    return output


def regions(client: Any, name: str = "") -> dict[str, tuple[str, int, int]]:
    """name -> key, offset, byte size, by either protocol."""
    if client.is_grpc:
        status = client.call("get_system_shared_memory_status", name)
        return {n: (r.key, r.offset, r.byte_size) for n, r in status.regions.items()}
    status = client.call("get_system_shared_memory_status", name)
    return {r["name"]: (r["key"], r["offset"], r["byte_size"]) for r in status}


@contextmanager
def refused(client: Any, code: str, *words: str) -> Iterator[None]:
    with pytest.raises(InferenceServerException) as raised:
        yield
    text = raised.value.message()
    assert all(word in text for word in words), text
    status = raised.value.status()
    if client.is_grpc:
        assert status == f"StatusCode.{code}", text
    elif status is not None:  # tritonclient.http tells it for some calls only
        assert str(HTTP_OF[code]) in str(status), text
    assert len(text) <= 1024
    own_words = re.sub(r"'.*?'", "", text, flags=re.S)  # without what it repeats of the client's
    assert not re.search(r"/dev/|/proc/|0x|[\x00-\x1f\x7f]", own_words), text
    assert not re.search(r"[\x00-\x1f\x7f]", text), text


# --- tritonclient's examples --------------------------------------------------------------------------------------------


def test_simple_shm_client(own: Any) -> None:
    own.call("unregister_system_shared_memory")
    own.call("unregister_cuda_shared_memory")
    rows = [np.arange(16, dtype=np.int32), np.ones(16, dtype=np.int32)]
    size = rows[0].nbytes
    with registered(own, "output_data", 2 * size) as out, registered(own, "input_data", 2 * size) as into:
        shm.set_shared_memory_region(into, rows)
        inputs = [
            shared_input(own, "INPUT0", [1, 16], "INT32", "input_data", size),
            shared_input(own, "INPUT1", [1, 16], "INT32", "input_data", size, size),
        ]
        outputs = [
            shared_output(own, "OUTPUT0", "output_data", size),
            shared_output(own, "OUTPUT1", "output_data", size, size),
        ]
        results = own.call("infer", "simple", inputs, outputs=outputs)
        for number, want in enumerate((rows[0] + rows[1], rows[0] - rows[1])):
            output = results.get_output(f"OUTPUT{number}")
            shape = list(output.shape) if own.is_grpc else output["shape"]
            found = shm.get_contents_as_numpy(out, np.int32, shape, offset=number * size)
            np.testing.assert_array_equal(found, [want])
            parameters = output.parameters if own.is_grpc else output["parameters"]
            back = {
                name: (value.string_param or value.int64_param) if own.is_grpc else value
                for name, value in parameters.items()
            }
            assert back == {
                "shared_memory_region": "output_data",
                "shared_memory_byte_size": size,
                "shared_memory_offset": number * size,
            }
            assert own.is_grpc or "data" not in output
        if own.is_grpc:
            assert list(results.get_response().raw_output_contents) == [b"", b""]
        assert regions(own) == {
            "input_data": (key_of("input_data"), 0, 2 * size),
            "output_data": (key_of("output_data"), 0, 2 * size),
        }
        own.call("unregister_system_shared_memory")
        assert regions(own) == {}
        del found
        gc.collect()


def test_simple_shm_string_client(own: Any) -> None:
    words = [
        np.array([[b"one", b"", b"three", b"\xff\x00"]], dtype=object),
        np.array([[b"5", b"6", b"7", b"8"]], dtype=object),
    ]
    texts = [serialize_byte_tensor(w) for w in words]
    sizes = [len(text.item()) for text in texts]
    with registered(own, "words", sum(sizes)) as into, registered(own, "answers", 1000) as out:
        shm.set_shared_memory_region(into, texts)
        inputs = [
            shared_input(own, "INPUT0", [1, 4], "BYTES", "words", sizes[0]),
            shared_input(own, "INPUT1", [1, 4], "BYTES", "words", sizes[1], sizes[0]),
        ]
        outputs = [
            shared_output(own, "OUTPUT0", "answers", 500),
            shared_output(own, "OUTPUT1", "answers", 500, 500),
        ]
        own.call("infer", "simple_string", inputs, outputs=outputs)
        for number in (0, 1):
            found = shm.get_contents_as_numpy(out, np.object_, [1, 4], offset=500 * number)
            np.testing.assert_array_equal(found, words[number])
        # What stands there is checked in a copy: a length that leads beyond it is refused.
        shm.set_shared_memory_region(into, [np.array([200], dtype=np.uint32)])
        with refused(own, "INVALID_ARGUMENT", "INPUT0"):
            own.call("infer", "simple_string", inputs, outputs=outputs)


# --- the rules ------------------------------------------------------------------------------------------------------------


def test_one_region_by_name(own: Any) -> None:
    with registered(own, "a b", 64, 4096 + 8), registered(own, "ä", 64):
        assert regions(own, "a b") == {"a b": (key_of("a b"), 4104, 64)}
        assert set(regions(own)) == {"a b", "ä"}
        with refused(own, "NOT_FOUND", "Unable to find system shared memory region: 'no'"):
            regions(own, "no")
        with refused(own, "ALREADY_EXISTS", "shared memory region 'ä' already in manager"):
            own.call("register_system_shared_memory", "ä", key_of("ä"), 64)
        own.call("unregister_system_shared_memory", "no")  # of an unknown name: fine
        own.call("unregister_system_shared_memory", "ä")
        assert set(regions(own)) == {"a b"}
        own.call("register_system_shared_memory", "ä", key_of("ä"), 32, 32)
        assert regions(own, "ä") == {"ä": (key_of("ä"), 32, 32)}


def test_cuda_memory_is_not_supported_and_shares_the_names(own: Any) -> None:
    with registered(own, "r", 64):
        with refused(own, "UNIMPLEMENTED", "GPUs are not supported"):
            own.call("register_cuda_shared_memory", "c", b"A" * 88, 0, 64)
        status = own.call("get_cuda_shared_memory_status")
        assert not (status.regions if own.is_grpc else status)
        with refused(own, "NOT_FOUND", "Unable to find cuda shared memory region: 'c'"):
            own.call("get_cuda_shared_memory_status", "c")
        for method in ("get_cuda_shared_memory_status", "unregister_cuda_shared_memory"):
            with refused(own, "NOT_FOUND", "'r' is registered as system shared memory, not CUDA"):
                own.call(method, "r")
        own.call("unregister_cuda_shared_memory")
        assert set(regions(own)) == {"r"}


def test_mixed_with_what_comes_in_the_message(own: Any) -> None:
    left, right = np.arange(4, dtype=np.int32)[None], np.full((1, 4), 7, np.int32)
    with registered(own, "mixed", 4096) as memory:
        shm.set_shared_memory_region(memory, [left])
        for first in (0, 1):  # which of the two is in shared memory
            there = shared_input(own, f"INPUT{first}", [1, 4], "INT32", "mixed", 16)
            here = own.input(f"INPUT{1 - first}", "INT32", right)
            outputs = [
                shared_output(own, f"OUTPUT{1 - first}", "mixed", 16, 64),
                own.module.InferRequestedOutput(f"OUTPUT{first}"),
            ]
            result = own.call("infer", "echo", [there, here], outputs=outputs)
            np.testing.assert_array_equal(result.as_numpy(f"OUTPUT{first}"), left)
            np.testing.assert_array_equal(shm.get_contents_as_numpy(memory, np.int32, [1, 4], 64), right)
        np.testing.assert_array_equal(
            own.call(
                "infer",
                "echo",
                [shared_input(own, f"INPUT{i}", [1, 4], "INT32", "mixed", 16) for i in (0, 1)],
            ).as_numpy("OUTPUT1"),
            left,
        )
        gc.collect()


def test_an_answer_onto_its_own_input(own: Any) -> None:
    x = np.linspace(-1, 1, 16, dtype=np.float32)[None]
    with registered(own, "onto", 4096) as memory:
        for shift in (0, 8):
            shm.set_shared_memory_region(memory, [x])
            tensor = shared_input(own, "x", [1, 16], "FP32", "onto", 64)
            own.call("infer", "mlp", [tensor], outputs=[shared_output(own, "y", "onto", 20, shift)])
            found = shm.get_contents_as_numpy(memory, np.float32, [1, 5], shift).copy()
            np.testing.assert_allclose(found, mlp_answer(x), rtol=0.02, atol=0.02)


def test_an_image_is_not_copied_by_the_server(own: Any, own_server: RunningServer) -> None:
    def copied() -> float:
        return own_server.scrape()['fastserve_copied_bytes_total{model="image",version="1"}']

    image = np.random.default_rng(1).standard_normal((1, IMAGE)).astype(np.float32)
    # Together beyond the message limit, which counts the message.
    assert image.nbytes > MAX_MESSAGE_BYTES
    with registered(own, "image", image.nbytes) as memory:
        shm.set_shared_memory_region(memory, [image])
        tensor = shared_input(own, "INPUT0", [1, IMAGE], "FP32", "image", image.nbytes)
        before = copied()
        # Onto itself: the answer is made elsewhere first, and copied.
        own.call("infer", "image", [tensor], outputs=[shared_output(own, "OUTPUT0", "image", image.nbytes)])
        assert copied() - before == image.nbytes
    with registered(own, "rows", 40 * 4) as memory:
        x = np.random.default_rng(2).standard_normal((1, 16)).astype(np.float32)
        shm.set_shared_memory_region(memory, [x])
        tensor = shared_input(own, "x", [1, 16], "FP32", "rows", 64)
        name = 'fastserve_copied_bytes_total{model="mlp",version="1"}'
        before = own_server.scrape()[name]
        for _ in range(3):
            own.call("infer", "mlp", [tensor], outputs=[shared_output(own, "y", "rows", 20, 100)])
        assert own_server.scrape()[name] == before


def test_the_answer_needs_its_room(own: Any) -> None:
    with registered(own, "room", 64) as memory:
        tensors = [shared_input(own, f"INPUT{i}", [1, 4], "INT32", "room", 16) for i in (0, 1)]
        shm.set_shared_memory_region(memory, [np.arange(4, dtype=np.int32)])
        for size in (15, 16, 17):
            outputs = [shared_output(own, "OUTPUT0", "room", size, 32)]
            if size >= 16:
                own.call("infer", "echo", tensors, outputs=outputs)
                continue
            words = (
                "shared memory size specified with the request for output 'OUTPUT0' (15 bytes) "
                "should be at least 16 bytes to hold the results"
            )
            with refused(own, "INVALID_ARGUMENT", words):
                own.call("infer", "echo", tensors, outputs=outputs)


U64 = (1 << 64) - 1
I64 = (1 << 63) - 1
PLACES: list[tuple[tuple[Any, ...], str, str]] = [
    (("no", 16), "NOT_FOUND", "Unable to find shared memory region: 'no'"),
    (("r", 16, 64), "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
    (("r", 16, I64), "INVALID_ARGUMENT", "Invalid offset for shared memory region: 'r'"),
    (("r", 16, 49), "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
    (("r", 65), "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
    (("r", I64), "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
    (("r", I64, 63), "INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'r'"),
    (("r", -1), "INVALID_ARGUMENT", "shared_memory_byte_size"),
    (("r", 16, -1), "INVALID_ARGUMENT", "shared_memory_offset"),
    (("", 16), "INVALID_ARGUMENT", "shared_memory_region"),
]


@pytest.mark.parametrize(("place", "code", "words"), PLACES, ids=lambda value: str(value)[:24])
def test_places_that_are_not_there(either: Any, place: tuple[Any, ...], code: str, words: str) -> None:
    with registered(either, "r", 64):
        fine = [shared_input(either, "INPUT1", [1, 4], "INT32", "r", 16)]
        with refused(either, code, words, "INPUT0" if "_" not in words else ""):
            either.call("infer", "echo", [shared_input(either, "INPUT0", [1, 4], "INT32", *place), *fine])
        both = [shared_input(either, "INPUT0", [1, 4], "INT32", "r", 16), *fine]
        with refused(either, code, words):
            either.call("infer", "echo", both, outputs=[shared_output(either, "OUTPUT0", *place)])


def test_input_sizes_are_the_shapes(either: Any) -> None:
    with registered(either, "r", 64):
        fine = shared_input(either, "INPUT1", [1, 4], "INT32", "r", 16)
        for size in (0, 15, 17):
            with refused(either, "INVALID_ARGUMENT", "input byte size mismatch for input 'INPUT0'"):
                either.call(
                    "infer", "echo", [shared_input(either, "INPUT0", [1, 4], "INT32", "r", size), fine]
                )


def test_classes_are_texts_and_not_put_there(own: Any) -> None:
    with registered(own, "r", 4096):
        output = own.module.InferRequestedOutput("y", class_count=2)
        if own.is_grpc:
            output._output.parameters["shared_memory_region"].string_param = "r"
            output._output.parameters["shared_memory_byte_size"].int64_param = 4096
        else:
            output._parameters |= {"shared_memory_region": "r", "shared_memory_byte_size": 4096}
        words = "output can't set both 'shared_memory_region' and 'classification'"
        with refused(own, "INVALID_ARGUMENT", words):
            own.call("infer", "mlp", [shared_input(own, "x", [1, 16], "FP32", "r", 64)], outputs=[output])


# --- what may be registered -----------------------------------------------------------------------------------------------

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


# --- REST bodies that tritonclient does not write ---------------------------------------------------------------------------


def post(server: RunningServer, path: str, body: Any) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{server.http}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "key: missing, want a text"),
        ({"key": 7, "byte_size": 1}, "key: got another type, want a text"),
        ({"key": "/x"}, "byte_size: missing, want a whole number"),
        ({"key": "/x", "byte_size": "1"}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": 1.5}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": True}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": -1}, "byte_size: got -1, want 0 to 18446744073709551615"),
        ({"key": "/x", "byte_size": U64 + 1}, "byte_size: got 18446744073709551616"),
        ({"key": "/x", "byte_size": 1, "offset": -1}, "offset: got -1"),
        ({"key": "/x", "byte_size": 1, "offset": None}, "offset: missing"),
        ([], "the request body has to be a JSON object"),
        (b"{", "failed to parse the request body as JSON"),
    ],
)
def test_registrations_over_rest_are_checked(own_server: RunningServer, body: Any, words: str) -> None:
    status, text = post(own_server, "/v2/systemsharedmemory/region/r/register", body)
    assert (status, words in text) == (400, True), text


def test_names_in_paths(own_server: RunningServer) -> None:
    with created("path", 64):
        body = {"key": key_of("path"), "byte_size": 64}
        for name in ("a b", "ä", "%", "?", "a+b", "..", "x" * 256):
            quoted = urllib.parse.quote(name, safe="")
            assert post(own_server, f"/v2/systemsharedmemory/region/{quoted}/register", body)[0] == 200, name
            with urllib.request.urlopen(
                f"http://{own_server.http}/v2/systemsharedmemory/region/{quoted}/status", timeout=5
            ) as response:
                assert json.load(response)[0]["name"] == name
            assert post(own_server, f"/v2/systemsharedmemory/region/{quoted}/unregister", {})[0] == 200
        for name in ("a%00b", "a%0Ab", "x" * 257, "a%7F"):
            assert post(own_server, f"/v2/systemsharedmemory/region/{name}/register", body)[0] == 400, name
        for path in ("region//register", "region/a/b/register", "region/register", "a/register"):
            assert post(own_server, f"/v2/systemsharedmemory/{path}", body)[0] in (404, 405), path
    assert "fs-" not in own_server.scrape()


# --- owners that do what they want ------------------------------------------------------------------------------------------


class Cut:
    """A region whose owner may truncate it; `put` works before that."""

    def __init__(self, client: Any, name: str, pages: int = 16) -> None:
        self.path = SHM / key_of(name)[1:]
        self.path.write_bytes(bytes(pages * PAGE))
        self.bytes = pages * PAGE
        client.call("register_system_shared_memory", name, key_of(name), self.bytes)

    def cut(self, size: int = 0) -> None:
        os.truncate(self.path, size)

    def close(self) -> None:
        self.path.unlink()


@pytest.fixture
def cut(either: Any) -> Iterator[Cut]:
    region = Cut(either, "cut")
    yield region
    region.close()


def cut_request(client: Any, region: Cut, place: str) -> dict[str, Any]:
    """A slow request that reads or writes all of the region."""
    count = region.bytes // 4
    if place == "output":
        own_input = client.module.InferInput("INPUT0", [count // 8], "INT32")
        own_input.set_data_from_numpy(np.ones(count // 8, np.int32))
        return {"inputs": [own_input], "outputs": [shared_output(client, "OUTPUT0", "cut", count // 2)]}
    return {
        "inputs": [shared_input(client, "INPUT0", [count], "INT32", "cut", region.bytes)],
        "outputs": [client.module.InferRequestedOutput("OUTPUT0")],
    }


WORDS = "shared memory region 'cut' was truncated by its owner"


@pytest.mark.parametrize("place", ["input", "output"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_truncated(
    either: Any, own_server: RunningServer, client_class: Any, cut: Cut, place: str, when: str
) -> None:
    request = cut_request(either, cut, place)
    other = client_class("grpc", own_server)
    failures: list[BaseException] = []
    stop = threading.Event()

    def others() -> None:
        x = np.ones((1, 4), np.int32)
        try:
            while not stop.is_set():
                other.infer("echo", {"INPUT0": ("INT32", x), "INPUT1": ("INT32", x)})
        except BaseException as error:
            failures.append(error)

    gc.collect()  # tritonclient.http wants to be collected in the thread that made it
    thread = threading.Thread(target=others)
    thread.start()
    timer = threading.Timer(0.0 if when == "before" else SLOW_S / 2, cut.cut)
    timer.start()
    if when == "before":
        timer.join()
    try:
        with refused(either, "INVALID_ARGUMENT", WORDS):
            either.call("infer", "slow", **request)
    finally:
        stop.set()
        thread.join()
        other.close()
    assert not failures
    assert set(regions(either)) == {"cut"}, "listed until it is unregistered"
    assert own_server.scrape()["fastserve_shared_memory_broken_regions"] == 1
    cut.cut(cut.bytes)  # made larger again it is still another memory
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "slow", **request)
    either.call("unregister_system_shared_memory", "cut")
    either.call("register_system_shared_memory", "cut", key_of("cut"), cut.bytes)
    either.call("infer", "slow", **request)
    assert own_server.scrape()["fastserve_shared_memory_broken_regions"] == 0


def test_truncated_under_openvino(either: Any, cut: Cut) -> None:
    """Whatever thread reads or writes it."""
    there = shared_input(either, "x", [8, 16], "FP32", "cut", 512, PAGE)
    here = either.input("x", "FP32", np.ones((8, 16), np.float32))
    answer = [shared_output(either, "y", "cut", 160, 2 * PAGE)]
    cut.cut(2 * PAGE)
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "mlp", [here], outputs=answer)
    either.call("unregister_system_shared_memory", "cut")
    either.call("register_system_shared_memory", "cut", key_of("cut"), 2 * PAGE)
    either.call("infer", "mlp", [there])
    cut.cut(0)
    with refused(either, "INVALID_ARGUMENT", WORDS):
        either.call("infer", "mlp", [there])


def test_unregistered_while_a_request_uses_it(own: Any, own_server: RunningServer, client_class: Any) -> None:
    values = np.arange(64, dtype=np.int32)
    other = client_class("grpc", own_server)  # may be used from another thread
    in_flight = 'fastserve_requests_in_flight{model="slow",version="1"}'
    seen: dict[str, Any] = {}

    def meanwhile() -> None:
        until = time.monotonic() + 10
        while own_server.scrape()[in_flight] == 0 and time.monotonic() < until:
            pass
        other.call("unregister_system_shared_memory", "used")
        seen["listed"] = regions(other)
        seen["mapped"] = own_server.scrape()["fastserve_shared_memory_regions"]
        other.call("register_system_shared_memory", "used", key_of("next"), 64)
        seen["listed anew"] = regions(other)
        seen["running"] = own_server.scrape()[in_flight]

    with registered(own, "used", 4096) as memory, created("next", 64):
        shm.set_shared_memory_region(memory, [values])
        thread = threading.Thread(target=meanwhile)
        thread.start()
        tensor = shared_input(own, "INPUT0", [64], "INT32", "used", 256)
        try:
            own.call("infer", "slow", [tensor], outputs=[shared_output(own, "OUTPUT0", "used", 256, 2048)])
        finally:
            thread.join()
            other.close()
        assert seen == {
            "listed": {},  # its name is gone at once
            "mapped": 1,  # its memory is not
            "listed anew": {"used": (key_of("next"), 0, 64)},
            "running": 1,
        }
        np.testing.assert_array_equal(shm.get_contents_as_numpy(memory, np.int32, [64], 2048), values)
        gc.collect()


# Standard library only, so that it starts quickly: registers a region, then infers from it and into it, and cuts it off
# and makes it whole again while requests run.
KILLED = """
import http.client, json, os, random, sys, threading
address, key, count = sys.argv[1], sys.argv[2], 4096
path, size = "/dev/shm" + key, 4 * 4096
with open(path, "wb") as f:
    f.write(bytes(size))
def post(http, path, body):
    http.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    http.getresponse().read()
http = http.client.HTTPConnection(address)
name = key[1:]
post(http, f"/v2/systemsharedmemory/region/{name}/register", {"key": key, "byte_size": size})
print("ready", flush=True)
def cut():
    while True:
        os.truncate(path, random.choice([0, 4096, 5000, size]))
threading.Thread(target=cut, daemon=True).start()
place = {"shared_memory_region": name, "shared_memory_byte_size": size // 2}
request = {
    "inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [size // 8], "parameters": place}],
    "outputs": [{"name": "OUTPUT0", "parameters": {**place, "shared_memory_offset": size // 2}}],
}
while True:
    post(http, f"/v2/models/{random.choice(['quick', 'slow'])}/infer", request)
    post(http, f"/v2/systemsharedmemory/region/{name}/unregister", {})
    post(http, f"/v2/systemsharedmemory/region/{name}/register", {"key": key, "byte_size": size})
"""


def test_clients_that_cut_and_die(either: Any, own_server: RunningServer, client_class: Any) -> None:
    random.seed(7)
    other = client_class("grpc", own_server)
    x = np.ones((1, 4), np.int32)
    for number in range(KILLS):
        key = key_of(f"killed{number}")
        command = [sys.executable, "-c", KILLED, own_server.http, key]
        client = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert client.stdout
            assert client.stdout.readline() == b"ready\n"
            until = time.monotonic() + random.uniform(0, 0.1)
            while time.monotonic() < until:
                other.infer("echo", {"INPUT0": ("INT32", x), "INPUT1": ("INT32", x)})
        finally:
            client.kill()
            client.wait()
            (SHM / key[1:]).unlink()
        other.call("unregister_system_shared_memory")
    other.close()
    assert own_server.process.poll() is None
    until = time.monotonic() + 5
    while mapped(own_server) and time.monotonic() < until:  # its last request ends
        either.call("unregister_system_shared_memory")  # that may have been a registration
    assert not mapped(own_server)
    assert regions(either) == {}


def test_what_a_dead_client_left_is_found_and_released(either: Any, own_server: RunningServer) -> None:
    with registered(either, "left", 4096):
        pass  # its owner removed the object's name and went
    assert regions(either, "left") == {"left": (key_of("left"), 0, 4096)}
    assert mapped(own_server)
    either.call("unregister_system_shared_memory", "left")
    assert not mapped(own_server)


def test_while_it_is_off(client: Any) -> None:
    """The server of the other tests has no --allow-client-shm."""
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("get_system_shared_memory_status", ()),
        ("register_system_shared_memory", ("r", "/fs-x", 64)),
        ("unregister_system_shared_memory", ()),
        ("get_cuda_shared_memory_status", ()),
        ("register_cuda_shared_memory", ("r", b"A" * 88, 0, 64)),
        ("unregister_cuda_shared_memory", ("r",)),
    ]
    for method, arguments in calls:
        with refused(client, "UNIMPLEMENTED", "shared memory is not enabled on this server"):
            client.call(method, *arguments)
    assert "system_shared_memory" not in client.json("get_server_metadata")["extensions"]


def test_the_metadata_say_so(own: Any) -> None:
    assert "system_shared_memory" in own.json("get_server_metadata")["extensions"]
