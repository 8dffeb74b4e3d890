"""What requests may say about regions, and what they get."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from client_memory import (
    IMAGE,
    MAX_MESSAGE_BYTES,
    key_of,
    refused,
    regions,
    registered,
    shared_input,
    shared_output,
    shm,
)
from model_repository import mlp_answer
from running_server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


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
