"""Models that OpenVINO does not run, served over the wire: Python models, ONNX Runtime, PyTorch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.http as http
from onnx import TensorProto, helper
from running_server import RunningServer
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import fastserve
from fastserve import errors

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

TRITON = """
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.set_max_batch_size(8)
            config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [2]})
            config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
            return config

        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if x[0, 0] < 0:
                error = pb_utils.TritonError("x: got less than 0", pb_utils.TritonError.INVALID_ARG)
                return pb_utils.InferenceResponse(error=error)
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", x * 2)])
"""
SIMPLE = """
    import numpy as np
    from fastserve.worker.models import model

    @model(inputs={"x": ("BYTES", [1])}, outputs={"y": ("BYTES", [1])}, max_batch_rows=32)
    def upper(x):
        return np.array([[cell.upper() for cell in row] for row in x], object)
"""

OPTIONAL = """
    import json
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            bias = pb_utils.get_input_tensor_by_name(request, "bias")
            factor = json.loads(request.parameters()).get("factor", 1)
            y = x * np.float32(factor) + (np.float32(0) if bias is None else bias.as_numpy())
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)])
"""
OPTIONAL_CONFIG = """
backend: "python" max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 3 }
input { name: "bias" data_type: TYPE_FP32 dims: 3 optional: true }
output { name: "y" data_type: TYPE_FP32 dims: 3 }
dynamic_batching { max_queue_delay_microseconds: 20000 }
"""

# Open dimensions: a warm-up with zeros that fails, because the other model is not there yet, is then no obstacle.
CALLER = """
    import json
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        @staticmethod
        def auto_complete_config(config):
            config.set_max_batch_size(8)
            config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [-1]})
            config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [-1]})
            return config

        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x")
            to = "nobody" if x.as_numpy()[0, 0] > 8 else "usual"
            parameters = json.loads(request.parameters())
            call = pb_utils.InferenceRequest(
                model_name=parameters.pop("to", to), requested_output_names=["y"], inputs=[x], parameters=parameters
            )
            response = call.exec()
            if response.has_error():
                return pb_utils.InferenceResponse(error=response.error())
            y = pb_utils.get_output_tensor_by_name(response, "y").as_numpy()
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", y + 1)])
"""


def determinant(path: Path) -> None:
    """An operation that OpenVINO lacks."""
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def relu(path: Path) -> None:
    """One that it has."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


class Affine(torch.nn.Module):  # type: ignore[misc, name-defined]
    def forward(self, x):  # type: ignore[no-untyped-def]
        return x * 3 + 1


def write(repository: Path) -> Path:
    def folder(model: str, config: str = "") -> Path:
        path = repository / model / "1"
        path.mkdir(parents=True)
        if config:
            (repository / model / "config.pbtxt").write_text(config)
        return path

    (folder("triton") / "model.py").write_text(textwrap.dedent(TRITON))
    (folder("simple") / "model.py").write_text(textwrap.dedent(SIMPLE))
    (folder("caller") / "model.py").write_text(textwrap.dedent(CALLER))
    (folder("optional", OPTIONAL_CONFIG) / "model.py").write_text(textwrap.dedent(OPTIONAL))
    determinant(folder("det") / "model.onnx")
    relu(folder("asked", 'backend: "onnxruntime"') / "model.onnx")
    relu(folder("usual") / "model.onnx")
    script = folder(
        "script",
        'platform: "pytorch_libtorch" max_batch_size: 8\n'
        'input { name: "INPUT__0" data_type: TYPE_FP32 dims: 3 }\n'
        'output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: 3 }\n',
    )
    torch.jit.save(torch.jit.script(Affine()), script / "model.pt")
    rows = torch.export.Dim("rows", min=1, max=64)
    program = torch.export.export(Affine(), (torch.ones(2, 3),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, folder("exported") / "model.pt2")
    return repository


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("other_backends")
    with RunningServer(write(folder / "models"), folder, "--allow-python-models") as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Any]:
    made = http.InferenceServerClient(server.http)
    yield made
    made.close()


def ask(client: Any, model: str, parameters: dict[str, Any] | None = None, **inputs: Any) -> Any:
    """Of the first output."""
    tensors = []
    for name, array in inputs.items():
        tensor = http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    answer = client.infer(model, tensors, parameters=parameters)
    return answer.as_numpy(answer.get_response()["outputs"][0]["name"])


EYE = np.stack([np.eye(3, dtype=np.float32), 2 * np.eye(3, dtype=np.float32)])
THREE = np.array([[-1, 0, 2]], np.float32)


@pytest.mark.parametrize(
    ("model", "inputs", "want"),
    [
        ("triton", {"x": np.array([[1, 2]], np.float32)}, [[2, 4]]),
        ("simple", {"x": np.array([[b"abc"], [b"d"]], object)}, [[b"ABC"], [b"D"]]),
        ("det", {"x": EYE}, [1, 8]),
        ("asked", {"x": THREE}, [[0, 0, 2]]),
        ("usual", {"x": THREE}, [[0, 0, 2]]),
        ("script", {"INPUT__0": THREE}, [[-2, 1, 7]]),
        ("exported", {"x": THREE}, [[-2, 1, 7]]),
    ],
)
def test_every_backend_answers(client: Any, model: str, inputs: dict[str, Any], want: list[Any]) -> None:
    assert ask(client, model, **inputs).tolist() == want


@pytest.mark.parametrize(
    ("model", "backend", "platform", "rows"),
    [
        ("triton", "python", "python", 8),
        ("simple", "python", "python", 32),
        ("det", "onnxruntime", "onnxruntime_onnx", 64),
        ("asked", "onnxruntime", "onnxruntime_onnx", 64),
        ("usual", "openvino", None, 64),
        ("script", "pytorch", "pytorch_libtorch", 8),
        ("exported", "pytorch", "pytorch_libtorch", 64),
    ],
)
def test_the_configuration_says_what_runs_it(
    client: Any, model: str, backend: str, platform: str | None, rows: int
) -> None:
    config = client.get_model_config(model)
    assert (config["backend"], config["max_batch_size"]) == (backend, rows)
    if platform:
        assert config["platform"] == platform
        assert client.get_model_metadata(model)["platform"] == platform
    assert not any(name.startswith("fastserve.") for name in config["parameters"])


def test_a_models_error_keeps_its_code(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="x: got less than 0") as refused:
        ask(client, "triton", x=np.array([[-1, 2]], np.float32))
    assert refused.value.status() == "400"


def test_a_model_calls_another(client: Any) -> None:
    assert ask(client, "caller", x=THREE).tolist() == [[1, 1, 3]]
    with pytest.raises(InferenceServerException, match="nobody") as refused:
        ask(client, "caller", x=THREE + 10)
    assert refused.value.status() == "404"


def test_a_call_carries_parameters(client: Any) -> None:
    parameters = {"to": "optional", "factor": 2.5, "flag": True, "word": "w", "large": 2**63}
    assert ask(client, "caller", parameters, x=THREE).tolist() == [[-1.5, 1, 6]]


def test_an_optional_input_may_be_left_out(client: Any) -> None:
    assert ask(client, "optional", x=THREE).tolist() == [[-1, 0, 2]]
    assert ask(client, "optional", x=THREE, bias=THREE).tolist() == [[-2, 0, 4]]
    config = {
        tensor["name"]: tensor.get("optional", False)
        for tensor in client.get_model_config("optional")["input"]
    }
    assert config == {"x": False, "bias": True}
    with pytest.raises(InferenceServerException, match=r'inputs\["x"\]: missing'):
        ask(client, "optional", bias=THREE)


def test_requests_with_and_without_it_share_no_batch(client: Any) -> None:
    def one(seed: int) -> None:
        x = np.full((1, 3), seed, np.float32)
        with http.InferenceServerClient(client_address) as own:
            if seed % 2:
                assert ask(own, "optional", x=x).tolist() == x.tolist()
            else:
                assert ask(own, "optional", x=x, bias=x).tolist() == (2 * x).tolist()

    client_address = client._parsed_url.netloc
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(64)))


def test_an_input_that_the_model_needs_is_not_optional(tmp_path: Path) -> None:
    relu(tmp_path / "model.onnx")
    inputs = [fastserve.Tensor("x", "FP32", (-1, 3), optional=True)]
    with fastserve.Engine() as engine:
        for backend in ("openvino", "onnxruntime"):
            with pytest.raises(errors.InvalidArgument, match=r'input\["x"\].optional: got true, want false'):
                engine.load("asked", tmp_path, backend=backend, inputs=inputs)


def test_the_log_says_why_onnxruntime_took_a_model(server: RunningServer) -> None:
    lines = [line for line in server.log().splitlines() if "goes to onnxruntime" in line]
    assert len(lines) == 1
    assert "det version 1" in lines[0] or '"det"' in lines[0]


def test_an_embedded_engine_falls_back_as_the_server_does(tmp_path: Path) -> None:
    determinant(tmp_path / "model.onnx")
    x = np.stack([np.eye(3, dtype=np.float32) * 2])
    with fastserve.Engine() as engine:
        for number, path in enumerate((tmp_path, tmp_path / "model.onnx"), 1):
            model = engine.load("det", path, version=number)
            assert model.backend == "onnxruntime"
            assert model.properties["chosen_because"].startswith("OpenVINO cannot run it: ")
            assert engine.infer("det", {"x": x}, version=number)["y"].tolist() == [8.0]
        with pytest.raises(fastserve.FastserveError, match="Det"):
            engine.load("asked", tmp_path, backend="openvino")
