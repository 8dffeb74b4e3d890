"""Writes the model repositories that the benchmarks serve, on the spot and cached: nothing is downloaded.

    python benchmarks/models.py [--out build/bench-models] [identity] [mlp] [overload] [resnet50]

Each set is a repository of its own (Triton's layout), because a server loads all that is in a folder:

  identity   `identity` FP32 [N,16], `identity_any` FP32 [N,?], `identity_image` FP32 [N,3,224,224]
  mlp        `mlp`: FP32 [N,16] -> 64 (ReLU) -> [N,10], ONNX
  overload   `overload`, `overload_target`, `overload_burn`: identity FP32 [N,16], 2 ms for each request, one instance
  idle       `idle_0` ...: as many identity models as asked for
  resnet50   `resnet50`: FP32 [N,3,224,224] -> [N,1000], ONNX, BatchNorm folded; random weights, seed fixed
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_OUT = ROOT / "build" / "bench-models"

Parameters = Mapping[str, str]  # of config.pbtxt: the backend's own, for openvino the property names


@dataclass(frozen=True)
class Repository:
    """A folder to serve."""

    path: Path


@dataclass(frozen=True)
class OpenVINORepository(Repository):
    """With one model, whose file `openvino_limit` reads too."""

    model_file: Path


def identity(out: Path = DEFAULT_OUT) -> Repository:
    path = out / "identity"
    for name, dims, max_rows in (
        ("identity", "16", 64),
        ("identity_any", "-1", 64),
        ("identity_image", "3, 224, 224", 8),
    ):
        (path / name / "1").mkdir(parents=True, exist_ok=True)
        (path / name / "config.pbtxt").write_text(
            f'name: "{name}"\n'
            'backend: "identity"\n'
            f"max_batch_size: {max_rows}\n"
            f'input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
            f'output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
        )
    return Repository(path)


def _identity(repository: Path, name: str, max_rows: int, config: str = "") -> None:
    (repository / name / "1").mkdir(parents=True, exist_ok=True)
    (repository / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "identity"\nmax_batch_size: {max_rows}\n'
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 16 ] } ]\n'
        "instance_group [ { count: 1 kind: KIND_CPU } ]\n" + config
    )


def _text_parameters(parameters: Parameters) -> str:
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
        for key, value in parameters.items()
    )


def overload(out: Path = DEFAULT_OUT) -> Repository:
    """One row at a time, so that the capacity is known. Two levels of priority; a request that names none has the lower one."""
    path = out / "overload"
    batching = "dynamic_batching { priority_levels: 2 default_priority_level: 2 }\n"
    for name, parameters in (
        ("overload", {"execute_delay_us": "2000"}),
        ("overload_target", {"execute_delay_us": "2000", "target_p99_ms": "25"}),
        ("overload_burn", {"execute_burn_us": "2000"}),
    ):
        _identity(path, name, 1, batching + _text_parameters(parameters))
    return Repository(path)


def idle(count: int, out: Path = DEFAULT_OUT) -> Repository:
    path = out / f"idle-{count}"
    for number in range(count):
        _identity(path, f"idle_{number}", 8)
    return Repository(path)


def mlp(out: Path = DEFAULT_OUT, parameters: Parameters | None = None) -> OpenVINORepository:
    return _openvino_model(out / "mlp", "mlp", 64, _mlp, parameters or {})


def mlp_pair(out: Path = DEFAULT_OUT, parameters: Parameters | None = None) -> OpenVINORepository:
    """`mlp`, and `mlp_unbatched`, the same file with batches of one request."""
    _openvino_model(out / "mlp-pair", "mlp_unbatched", 1, _mlp, parameters or {})
    return _openvino_model(out / "mlp-pair", "mlp", 64, _mlp, parameters or {})


FIXED = (2, 4, 8, 16, 32)  # batch sizes that `resnet50_sweep` has models for


def resnet50_sweep(out: Path = DEFAULT_OUT, parameters: Parameters | None = None) -> OpenVINORepository:
    """`resnet50`, `resnet50_1` without batching, and `resnet50_2` ... that wait for a full batch of that size (20 ms at most)."""
    path = out / "resnet50-sweep"
    _openvino_model(path, "resnet50_1", 1, _resnet50, parameters or {})
    for rows in FIXED:
        _openvino_model(path, f"resnet50_{rows}", rows, _resnet50, parameters or {}, _fixed(rows))
    # As a server with this model alone finds by measuring; with seven that load at once nothing can be measured.
    return _openvino_model(path, "resnet50", 32, _resnet50, {**(parameters or {}), "prepared": "lone"})


def _fixed(rows: int) -> str:
    return f"dynamic_batching {{ preferred_batch_size: [ {rows} ] max_queue_delay_microseconds: 20000 }}\n"


def resnet50(out: Path = DEFAULT_OUT, parameters: Parameters | None = None) -> OpenVINORepository:
    return _openvino_model(out / "resnet50", "resnet50", 32, _resnet50, parameters or {})


SETS: dict[str, Callable[[Path], Repository]] = {
    "identity": identity,
    "mlp": mlp,
    "overload": overload,
    "resnet50": resnet50,
}


def _openvino_model(
    repository: Path,
    name: str,
    max_rows: int,
    build: Callable[[], ModelProto],
    parameters: Parameters,
    config_end: str = "",
) -> OpenVINORepository:
    file = repository / name / "1" / "model.onnx"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")  # an interrupted run must not leave half a model in the cache
        part.write_bytes(build().SerializeToString())
        part.rename(file)
    config = f'name: "{name}"\nbackend: "openvino"\nmax_batch_size: {max_rows}\n'
    (repository / name / "config.pbtxt").write_text(config + _text_parameters(parameters) + config_end)
    return OpenVINORepository(repository, file)


class _Graph:
    """Nodes and random weights of an ONNX graph with one FP32 input and output; each call returns its tensor's name."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _weight(self, shape: tuple[int, ...], deviation: float) -> str:
        name = f"weight_{len(self._weights)}"
        values = (self._random.standard_normal(shape, dtype=np.float32) * deviation).astype(np.float32)
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        weight = self._weight((outputs, inputs), inputs**-0.5)
        return self.node("Gemm", x, weight, self._weight((outputs,), 0.05), transB=1)

    def conv(self, x: str, inputs: int, outputs: int, size: int, stride: int = 1, gain: float = 1.0) -> str:
        """He's initialisation times `gain`; the bias stands for the folded BatchNorm."""
        weight = self._weight((outputs, inputs, size, size), gain * (2.0 / (inputs * size * size)) ** 0.5)
        bias = self._weight((outputs,), 0.05)
        pad = size // 2
        return self.node(
            "Conv", x, weight, bias, kernel_shape=[size, size], strides=[stride] * 2, pads=[pad] * 4
        )

    def model(self, name: str, input_shape: list[int], output: str, output_shape: list[int]) -> ModelProto:
        self._nodes[-1].output[0] = "output"
        assert output == self._nodes[-1].name
        tensor = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            name,
            [tensor("input", TensorProto.FLOAT, ["n", *input_shape])],
            [tensor("output", TensorProto.FLOAT, ["n", *output_shape])],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        return model


def _mlp() -> ModelProto:
    graph = _Graph()
    hidden = graph.node("Relu", graph.dense("input", 16, 64))
    return graph.model("mlp", [16], graph.dense(hidden, 64, 10), [10])


def _resnet50() -> ModelProto:
    """ResNet-50 (He et al., arXiv 1512.03385), version 1.5: the stride sits in the 3x3 convolution."""
    graph = _Graph()
    x = graph.node("Relu", graph.conv("input", 3, 64, 7, 2))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    inputs = 64
    for width, depth, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            stride = first_stride if block == 0 else 1
            body = graph.node("Relu", graph.conv(x, inputs, width, 1))
            body = graph.node("Relu", graph.conv(body, width, width, 3, stride))
            body = graph.conv(
                body, width, 4 * width, 1, gain=0.3
            )  # keeps the sums from growing block by block
            shortcut = graph.conv(x, inputs, 4 * width, 1, stride, gain=0.7) if block == 0 else x
            x = graph.node("Relu", graph.node("Add", body, shortcut))
            inputs = 4 * width
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    return graph.model("resnet50", [3, 224, 224], graph.dense(x, inputs, 1000), [1000])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(SETS)}; all if none is given")
    args = parser.parse_args()
    for name in args.sets or SETS:
        if name not in SETS:
            parser.error(f"unknown set {name!r}: want one of {', '.join(SETS)}")
        print(f"{name}: {SETS[name](args.out).path}")


if __name__ == "__main__":
    main()
