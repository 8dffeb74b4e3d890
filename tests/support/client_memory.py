"""Regions of clients' shared memory, as tritonclient makes and names them; the models that they are tried with."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from model_repository import identity, write_mlp
from running_server import RunningServer
from tritonclient.utils import InferenceServerException

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of pkg_resources
    from tritonclient.utils import shared_memory as shm

SHM = Path("/dev/shm")
PAGE = os.sysconf("SC_PAGE_SIZE")
KILLS = int(os.environ.get("TEST_SHM_KILLS", "20"))  # the long form is 1000
SLOW_S = 0.3
IMAGE = 150_528  # floats: 602,112 bytes
U64 = (1 << 64) - 1
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
