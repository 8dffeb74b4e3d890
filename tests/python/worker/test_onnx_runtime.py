"""ONNX models on ONNX Runtime: signature, batching, strings, parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from opening import request, spec_of, tensor, version_folder

from fastserve import errors
from fastserve.worker.model import WorkerModel, open_model
from fastserve.worker.models.onnx_runtime import OnnxModel

pytest.importorskip("onnxruntime")

Dims = list[Any]


def save(
    repository: Path, node: Any, ins: dict[str, tuple[int, Dims]], outs: dict[str, tuple[int, Dims]]
) -> None:
    def values(side: dict[str, tuple[int, Dims]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, *kind) for name, kind in side.items()]

    graph = helper.make_graph([node], "g", values(ins), values(outs))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.save(model, str(version_folder(repository) / "model.onnx"))


def opened(repository: Path, config: dict[str, Any] | None = None, **parameters: str) -> WorkerModel:
    return open_model(spec_of(repository, "onnxruntime", config, **parameters), None)


def det(repository: Path, rows_in: Any = "N", rows_out: Any = "N") -> None:
    """Determinants, which OpenVINO does not compute."""
    save(
        repository,
        helper.make_node("Det", ["x"], ["y"]),
        {"x": (TensorProto.FLOAT, [rows_in, 3, 3])},
        {"y": (TensorProto.FLOAT, [rows_out])},
    )


def test_rows_of_one_name_are_batched(tmp_path: Path) -> None:
    det(tmp_path)
    model = opened(tmp_path)
    described = model.describe()
    assert (described.max_batch_rows, described.platform) == (64, "onnxruntime_onnx")
    assert (described.inputs[0].shape, described.outputs[0].shape) == ([-1, 3, 3], [-1])
    eye = np.eye(3, dtype=np.float32)[None]
    one, two = model.execute([request(x=eye), request(x=np.concatenate([eye * 2, eye]))])
    assert (one.outputs["y"].tolist(), two.outputs["y"].tolist()) == ([1], [8, 1])


@pytest.mark.parametrize(
    ("rows_in", "rows_out", "limit", "why"),
    [
        (None, None, 64, "rows are free in front"),  # a trial shows it
        (2, 2, 0, "without a free dimension in front"),
        ("N", "N", 64, "rows are free in front"),
    ],
)
def test_whether_a_model_batches(tmp_path: Path, rows_in: Any, rows_out: Any, limit: int, why: str) -> None:
    det(tmp_path, rows_in, rows_out)
    described = opened(tmp_path).describe()
    assert described.max_batch_rows == limit
    assert why in described.properties["batching"]


def test_inputs_with_rows_of_their_own_are_not_batched(tmp_path: Path) -> None:
    save(
        tmp_path,
        helper.make_node("CDist", ["x", "z"], ["y"], domain="com.microsoft", metric="euclidean"),
        {"x": (TensorProto.FLOAT, ["N", 3]), "z": (TensorProto.FLOAT, ["M", 3])},
        {"y": (TensorProto.FLOAT, ["N", "M"])},
    )
    model = opened(tmp_path)
    assert model.describe().max_batch_rows == 0
    assert "leading dimensions differ: M, N" in model.describe().properties["batching"]
    (answer,) = model.execute([request(x=np.zeros((2, 3), np.float32), z=np.ones((4, 3), np.float32))])
    np.testing.assert_allclose(answer.outputs["y"], np.full((2, 4), 3**0.5), rtol=1e-6)
    with pytest.raises(errors.InvalidArgument, match=r"config\.max_batch_size: got 4, but the inputs'"):
        opened(tmp_path, {"max_batch_size": 4})


def test_a_trial_shows_rows_that_do_not_follow(tmp_path: Path) -> None:
    save(
        tmp_path,
        helper.make_node("Unique", ["x"], ["y"]),
        {"x": (TensorProto.FLOAT, [None])},
        {"y": (TensorProto.FLOAT, [None])},
    )
    described = opened(tmp_path).describe()
    assert described.max_batch_rows == 0
    assert 'output "y" has shape [1] for inputs of 7 rows' in described.properties["batching"]


def test_the_configuration_narrows(tmp_path: Path) -> None:
    det(tmp_path)
    config = {
        "max_batch_size": 5,
        "input": [tensor("x", "TYPE_FP32", 3, 3)],
        "output": [tensor("y", "TYPE_FP32")],
    }
    assert opened(tmp_path, config).describe().max_batch_rows == 5
    assert opened(tmp_path, {"max_batch_size": 0}).describe().max_batch_rows == 0


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (tensor("q", "TYPE_FP32", 3, 3), 'config.input["q"]: the model has no such input, it has "x"'),
        (tensor("x", "TYPE_FP64", 3, 3), 'config.input["x"].data_type: got FP64, model has FP32'),
        (tensor("x", "TYPE_FP32", 3), 'config.input["x"].dims: got [-1, 3], model has [-1, 3, 3]'),
        (tensor("x", "TYPE_FP32", 3, 4), 'config.input["x"].dims: shape[2]: got 4, model has 3'),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    det(tmp_path)
    with pytest.raises(errors.InvalidArgument) as refused:
        opened(tmp_path, {"max_batch_size": 5, "input": [given]})
    assert text in str(refused.value)


def test_strings_go_in_and_out(tmp_path: Path) -> None:
    save(
        tmp_path,
        helper.make_node("Identity", ["x"], ["y"]),
        {"x": (TensorProto.STRING, ["N", 1])},
        {"y": (TensorProto.STRING, ["N", 1])},
    )
    model = opened(tmp_path)
    assert model.describe().inputs[0].datatype == "BYTES"
    texts = np.array([["\u00e4".encode()], [b""]], object)
    (answer,) = model.execute([request(x=texts)])
    assert answer.outputs["y"].tolist() == [["\u00e4"], [""]]
    with pytest.raises(errors.InvalidArgument, match=r'inputs\["x"\]\[0\]: is not UTF-8 text'):
        model.execute([request(x=np.array([[b"\xff"]], object))])


def test_parameters(tmp_path: Path) -> None:
    det(tmp_path)
    options = {"intra_op_thread_count": "2", "enable_mem_arena": "0", "graph_optimization_level": "basic"}
    model = opened(tmp_path, None, **options, **{"session.set_denormal_as_zero": "1"})
    assert model.describe().properties["threads"] == "2"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("intra_op_thread_count", "-1", "want a whole number"),
        ("graph_optimization_level", "high", "want one of all, extended, basic, disable"),
        ("enable_mem_arena", "maybe", "want one of true, false"),
        ("device", "tpu", "want cpu, cuda or cuda:N"),
        ("device", "cuda:x", "want cpu, cuda or cuda:N"),
        ("intra_op_threads", "1", 'parameters["intra_op_threads"]: is not known'),
    ],
)
def test_wrong_parameters_are_named(tmp_path: Path, name: str, value: str, text: str) -> None:
    det(tmp_path)
    with pytest.raises(errors.InvalidArgument) as refused:
        opened(tmp_path, None, **{name: value})
    assert text in str(refused.value)
    assert f'parameters["{name}"]' in str(refused.value)


def test_what_is_no_onnx(tmp_path: Path) -> None:
    (version_folder(tmp_path) / "model.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(errors.InvalidArgument, match=r"'model\.onnx': ONNX Runtime: "):
        opened(tmp_path)


def test_a_gpu_without_the_cuda_provider_says_what_to_install(tmp_path: Path) -> None:
    det(tmp_path)
    with pytest.raises(
        errors.FailedPrecondition, match=r"has no CUDAExecutionProvider here: .* onnxruntime-gpu"
    ):
        opened(tmp_path, None, device="cuda")


class SimulatedCuda:
    """onnxruntime with a CUDA provider that starts or does not; it computes on the CPU."""

    def __init__(self, starts: bool) -> None:
        self._starts = starts
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, options: Any, providers: list[Any]) -> Any:
        self.asked = providers
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        if self._starts:
            session.get_providers = self.get_available_providers
            session.get_provider_options = lambda: dict(providers[:1])
        return session


def test_the_gpu_is_chosen_by_its_number_and_runs_without_graphs(tmp_path: Path) -> None:
    det(tmp_path)
    runtime = SimulatedCuda(starts=True)
    properties = (
        OnnxModel(runtime, spec_of(tmp_path, "onnxruntime", None, device="cuda:1")).describe().properties
    )
    assert runtime.asked == [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]
    assert properties["device"] == "CUDA:1"
    assert properties["graphs"] == "none: ONNX Runtime runs batch by batch"


def test_a_cuda_provider_that_does_not_start_is_no_cpu_model(tmp_path: Path) -> None:
    det(tmp_path)
    with pytest.raises(errors.FailedPrecondition, match="CUDAExecutionProvider does not start"):
        OnnxModel(SimulatedCuda(starts=False), spec_of(tmp_path, "onnxruntime", None, device="cuda"))
