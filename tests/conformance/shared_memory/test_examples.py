"""tritonclient's own examples of system shared memory, re-expressed."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from client_memory import key_of, refused, regions, registered, shared_input, shared_output, shm
from tritonclient.utils import serialize_byte_tensor

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


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
