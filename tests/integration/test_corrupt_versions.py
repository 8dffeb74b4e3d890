"""Versions and configurations broken in every way that we know: the one that served goes on, no request fails, the reason is
to be read in the repository index or the log, and nothing is tried again and again. One server, one model for each kind."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from running_server import RunningServer

Break = Callable[[Path], None]

SOON_S = 90.0
QUIET_S = 5.0  # a loop of retries would show
MOST_LOADS = 4  # of a version within that time, the first included


# --- models that are right


def onnx_model(
    factor: float = 1,
    *,
    dtype: str = "FLOAT",
    width: int = 4,
    names: tuple[str, str] = ("x", "y"),
    op: str = "Mul",
    domain: str = "",
    opset: int = 17,
) -> Any:
    """y = factor * x, [n, width]."""
    from onnx import TensorProto, helper

    number = getattr(TensorProto, dtype)
    scale = helper.make_tensor("k", number, [1], [factor])
    node = helper.make_node(op, [names[0], "k"], [names[1]], domain=domain)
    shapes = [helper.make_tensor_value_info(n, number, ["n", width]) for n in names]
    graph = helper.make_graph([node], "scale", shapes[:1], shapes[1:], [scale])
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def content(**changes: Any) -> bytes:
    return bytes(onnx_model(**changes).SerializeToString())


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] }
"""


# --- versions that are not


def onnx(data: Callable[[], bytes]) -> Break:
    return lambda version: _write(version / "model.onnx", data())


def _write(path: Path, data: bytes) -> None:
    write(path, data)


def with_bytes_turned() -> bytes:
    whole = bytearray(content())
    for at in range(len(whole) // 4, len(whole), 7):
        whole[at] ^= 0xA5
    return bytes(whole)


def with_dims(*dims: int) -> bytes:
    """A weight that says it is larger than its data."""
    model = onnx_model()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    return bytes(model.SerializeToString())


def with_weights_elsewhere(**entries: str) -> bytes:
    from onnx import TensorProto

    model = onnx_model()
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "weights.bin"} | entries).items():
        weight.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


def beside_weights(**entries: str) -> Break:
    def break_it(version: Path) -> None:
        write(version / "weights.bin", bytes(64))
        write(version / "model.onnx", with_weights_elsewhere(**entries))

    return break_it


def without_its_input() -> bytes:
    model = onnx_model()
    model.graph.node[0].input[0] = "nowhere"
    return bytes(model.SerializeToString())


def a_folder(version: Path) -> None:
    (version / "model.onnx").mkdir(parents=True)


def link_to(target: str) -> Break:
    def break_it(version: Path) -> None:
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(target)

    return break_it


def a_pipe(version: Path) -> None:
    version.mkdir(parents=True)
    os.mkfifo(version / "model.onnx")


def intermediate(spoil: Break) -> Break:
    """OpenVINO's own format: model.xml and model.bin, then spoilt."""

    def break_it(version: Path) -> None:
        import openvino

        staged = version.parent.parent.parent / "staged" / version.parent.name
        source = write(staged / "model.onnx", content())
        openvino.save_model(openvino.Core().read_model(str(source)), str(staged / "model.xml"))
        spoil(staged)
        for name in ("model.xml", "model.bin"):
            if (staged / name).exists():
                write(version / name, (staged / name).read_bytes())

    return break_it


def cut(name: str, keep: float) -> Break:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def unknown_layer(folder: Path) -> None:
    text = (folder / "model.xml").read_text()
    (folder / "model.xml").write_text(text.replace('type="Multiply"', 'type="Multiplied"'))


def manifest(change: Callable[[dict[str, Any]], object]) -> Break:
    def break_it(version: Path) -> None:
        data = content()
        files = {"model.onnx": {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
        listed: dict[str, Any] = {"files": files}
        write(version / "model.onnx", data)
        made = change(listed)
        text = made if isinstance(made, str) else json.dumps(listed)
        write(version / "fastserve-manifest.json", text.encode())

    return break_it


PYTHON_HEAD = "import os\nimport ctypes\n"
PYTHON_MODEL = """
class TritonPythonModel:
    def initialize(self, args):
        {at_load}
    def execute(self, requests):
        return []
"""


def python_model(text: str) -> Break:
    return lambda version: _write(version / "model.py", (PYTHON_HEAD + text).encode())


VERSIONS: dict[str, Break] = {
    "garbage": onnx(lambda: b"this is no ONNX file"),
    "empty_file": onnx(lambda: b""),
    "zeros": onnx(lambda: bytes(4096)),
    "cut_in_half": onnx(lambda: content()[: len(content()) // 2]),
    "cut_by_a_byte": onnx(lambda: content()[:-1]),
    "bytes_turned": onnx(with_bytes_turned),
    "unknown_operation": onnx(lambda: content(op="Mull")),
    "unknown_domain": onnx(lambda: content(op="Scale", domain="nobody.knows")),
    "input_of_nowhere": onnx(without_its_input),
    "weight_larger_than_its_data": onnx(lambda: with_dims(1 << 20)),
    "weight_of_a_huge_size": onnx(lambda: with_dims(1 << 40, 1 << 40)),
    "weight_of_a_negative_size": onnx(lambda: with_dims(-4)),
    "weights_that_are_missing": onnx(with_weights_elsewhere),
    "weights_of_a_negative_length": beside_weights(length="-4"),
    "weights_at_a_negative_offset": beside_weights(offset="-4"),
    "weights_beyond_the_end": beside_weights(offset="61"),
    "weights_of_another_length": beside_weights(length="8"),
    "weights_of_another_model": beside_weights(location="../../garbage/1/model.onnx"),
    "another_dtype": onnx(lambda: content(dtype="DOUBLE")),
    "another_shape": onnx(lambda: content(width=5)),
    "another_input": onnx(lambda: content(names=("z", "y"))),
    "another_output": onnx(lambda: content(names=("x", "z"))),
    "empty_folder": lambda version: version.mkdir(parents=True),
    "only_other_files": lambda version: _write(version / "readme.txt", b"the model comes later"),
    "a_folder_as_the_file": a_folder,
    "link_to_nothing": link_to("gone.onnx"),
    "link_to_itself": link_to("model.onnx"),
    "a_pipe_as_the_file": a_pipe,
    "xml_without_bin": intermediate(lambda folder: (folder / "model.bin").unlink()),
    "xml_cut": intermediate(cut("model.xml", 0.6)),
    "bin_cut": intermediate(cut("model.bin", 0.3)),
    "xml_with_an_unknown_layer": intermediate(unknown_layer),
    "saved_model_of_garbage": lambda version: _write(
        version / "model.savedmodel/saved_model.pb", b"\x08\x01garbage"
    ),
    "tflite_of_garbage": lambda version: _write(version / "model.tflite", b"TFL3" + bytes(64)),
    "manifest_with_another_hash": manifest(
        lambda listed: listed["files"]["model.onnx"].update(sha256="0" * 64)
    ),
    "manifest_of_garbage": manifest(lambda listed: '{"files": '),
    "manifest_of_another_kind": manifest(lambda listed: listed.update(files=["model.onnx"])),
}

# With `backend: "python"` in their configuration; version 1 is a program as well.
PROGRAMS: dict[str, Break] = {
    "program_with_a_syntax_error": python_model("def broken(:\n"),
    "program_that_imports_what_is_not_there": python_model("import nothing_of_this_name\n"),
    "program_without_its_class": python_model("x = 1\n"),
    "program_that_raises": python_model(PYTHON_MODEL.format(at_load='raise ValueError("no weights")')),
    "program_that_exits": python_model(PYTHON_MODEL.format(at_load="os._exit(3)")),
    "program_that_crashes": python_model(PYTHON_MODEL.format(at_load="ctypes.string_at(0)")),
}

# Whole new configurations beside a version that is right.
CONFIGURATIONS: dict[str, str] = {
    "config_cut": CONFIG[: len(CONFIG) // 2],
    "config_of_garbage": "\x00\x01 ][ not a config",
    "config_with_an_unknown_field": CONFIG + "max_batch_sise: 8",
    "config_with_text_for_a_number": CONFIG.replace("8", '"eight"'),
    "config_with_an_unknown_dtype": CONFIG.replace("TYPE_FP32", "TYPE_FP33"),
    "config_with_an_unknown_backend": CONFIG + 'backend: "no_such_backend"',
    "config_with_another_name": CONFIG + 'name: "somebody_else"',
    "config_with_a_negative_batch": CONFIG.replace("8", "-8"),
    "config_with_a_dimension_of_minus_seven": CONFIG.replace("[ 4 ]", "[ -7 ]"),
    "config_with_an_input_twice": CONFIG + 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }',
    "config_with_instances_beyond_reason": CONFIG + "instance_group { count: 2000000000 }",
}

GOOD_PROGRAM = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x)]) for x in inputs]
"""


class Asking:
    """All models in turn, over REST and gRPC at once, without an end; every answer must be version 1's."""

    def __init__(self, server: RunningServer, models: list[str]) -> None:
        self.faults: list[str] = []
        self.answers = 0
        self._models = models
        self._stop = threading.Event()
        clients = [(http_client, server.http), (grpc_client, server.grpc)]
        self._threads = [threading.Thread(target=self._run, args=each) for each in clients]

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, library: Any, address: str) -> None:
        given = library.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        with library.InferenceServerClient(address) as client:
            while not self._stop.is_set():
                for model in self._models:
                    self._ask(client, model, given)

    def _ask(self, client: Any, model: str, given: Any) -> None:
        try:
            result = client.infer(model, [given])
            answer = result.get_response()
            version = answer["model_version"] if isinstance(answer, dict) else answer.model_version
            values = result.as_numpy("y")
            if version != "1" or values.tolist() != [[1.0] * 4]:
                self.faults.append(f"{model}: version {version}, {values}")
        except Exception as error:
            self.faults.append(f"{model}: {error}")
        self.answers += 1
        time.sleep(0.001)


def good_models(root: Path) -> None:
    for name in [*VERSIONS, *CONFIGURATIONS]:
        write(root / name / "1/model.onnx", content())
        write(root / name / "config.pbtxt", CONFIG.encode())
    for name in PROGRAMS:
        write(root / name / "1/model.py", GOOD_PROGRAM.encode())
        write(root / name / "config.pbtxt", ('backend: "python"' + CONFIG).encode())


def break_all(root: Path) -> None:
    for name, break_it in (VERSIONS | PROGRAMS).items():
        break_it(root / name / "2")
    for name, text in CONFIGURATIONS.items():
        (root / name / "config.pbtxt").write_text(text)


def index(server: RunningServer) -> dict[str, tuple[str, str]]:
    with http_client.InferenceServerClient(server.http) as client:
        listed = client.get_model_repository_index()
    return {
        f"{entry['name']}/{entry.get('version', '')}": (entry.get("state", ""), entry.get("reason", ""))
        for entry in listed
    }


def told(server: RunningServer) -> dict[str, str]:
    """What is said of each kind: the reason of version 2; of configurations that of the version that serves."""
    reasons = {}
    for key, (state, reason) in index(server).items():
        name, _, version = key.rpartition("/")
        broken = "1" if name in CONFIGURATIONS else "2"
        if version == broken and state == ("READY" if name in CONFIGURATIONS else "UNAVAILABLE") and reason:
            reasons[name] = reason
    return reasons


def logged(server: RunningServer) -> str:
    lines = [record for record in server.log_records() if record.get("level") in ("warning", "error")]
    return "\n".join(json.dumps(line) for line in lines)


def failures(server: RunningServer) -> dict[str, float]:
    return {
        key: value
        for key, value in server.scrape().items()
        if key.startswith("fastserve_model_load_failures_total")
    }


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Asking, Path]]:
    """The server when everything is broken, and asked all the time."""
    folder = tmp_path_factory.mktemp("corrupt")
    root = folder / "models"
    good_models(root)
    flags = ("--model-control-mode", "poll", "--repository-poll-secs", "0.2", "--allow-python-models")
    with RunningServer(root, folder, *flags) as server:
        with Asking(server, [*VERSIONS, *PROGRAMS, *CONFIGURATIONS]) as asking:
            until = time.monotonic() + SOON_S
            while asking.answers < 200 and time.monotonic() < until:
                time.sleep(0.05)
            break_all(root)
            kinds = VERSIONS.keys() | PROGRAMS.keys() | CONFIGURATIONS.keys()
            while kinds - told(server).keys() and time.monotonic() < until:
                time.sleep(0.5)
            yield server, asking, root
        assert asking.answers > 1000


Broken = tuple[RunningServer, Asking, Path]


def test_there_are_enough_kinds() -> None:
    assert len(VERSIONS | PROGRAMS) >= 30


@pytest.mark.parametrize("kind", [*VERSIONS, *PROGRAMS, *CONFIGURATIONS])
def test_the_old_version_serves_on_and_the_reason_is_told(broken: Broken, kind: str) -> None:
    server, asking, _ = broken
    state, reason = index(server)[f"{kind}/1"]
    assert state == "READY"
    assert reason == "" or reason.startswith("serves on as it was; the new one failed: ")
    assert [fault for fault in asking.faults if fault.startswith(f"{kind}:")] == []
    assert told(server).get(kind), server.log()[-2000:]
    assert f'"{kind}"' in logged(server)
    counted = [key for key in failures(server) if f'model="{kind}"' in key]
    assert counted, failures(server)


def test_nothing_is_tried_again_and_again(broken: Broken) -> None:
    server, asking, _ = broken
    before = failures(server)
    lines = len(server.log_records())
    time.sleep(QUIET_S)
    after = failures(server)
    assert max(after.values()) <= MOST_LOADS, after
    assert sum(after.values()) - sum(before.values()) <= len(PROGRAMS), (before, after)
    # nor is anybody told the same every poll (25 of them)
    assert len(server.log_records()) - lines <= 2 * len(PROGRAMS)
    assert asking.faults == []


def test_a_version_that_is_repaired_serves(broken: Broken) -> None:
    server, _, root = broken
    (root / "repaired/1").mkdir(parents=True)
    write(root / "repaired/1/model.onnx", b"garbage")
    until = time.monotonic() + SOON_S
    while not index(server).get("repaired/1", ("", ""))[1] and time.monotonic() < until:
        time.sleep(0.1)
    write(root / "repaired/1/model.onnx", content())
    while index(server)["repaired/1"][0] != "READY" and time.monotonic() < until:
        time.sleep(0.1)
    assert index(server)["repaired/1"] == ("READY", "")
