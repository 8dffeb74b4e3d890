"""A model whose weights are what it consists of: dense layers of 4 MB, as many as are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDE = 1024  # one layer has 4 MB of weights
LAYERS = 3


def write_wide(root: Path, name: str, layers: int = LAYERS) -> None:
    """y = x + 0 * (x through layers that weigh 4 MB each)."""
    random = np.random.default_rng(1)
    nodes, weights, at = [], [], "x"
    for layer in range(layers):
        weight = random.standard_normal((WIDE, WIDE), np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [at, f"w{layer}"], [f"h{layer}"]))
        at = f"h{layer}"
    weights.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    nodes += [
        helper.make_node("Mul", [at, "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", WIDE]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, name, shapes[:1], shapes[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (root / name / "1").mkdir(parents=True)
    (root / name / "1/model.onnx").write_bytes(model.SerializeToString())
