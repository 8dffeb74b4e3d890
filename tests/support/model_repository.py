"""Writes the models that conformance and integration tests serve, and says what they answer.

identity models answer their inputs; `mlp` is an ONNX file for OpenVINO; `broken` and `misspelt` cannot be loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BATCH_ROWS = 8
WIDTH = 4  # elements of a row of the batch_* models

# OIP datatype -> (what config.pbtxt calls it, numpy dtype on the client's side)
DATATYPES: dict[str, tuple[str, Any]] = {
    "BOOL": ("TYPE_BOOL", np.bool_),
    "UINT8": ("TYPE_UINT8", np.uint8),
    "UINT16": ("TYPE_UINT16", np.uint16),
    "UINT32": ("TYPE_UINT32", np.uint32),
    "UINT64": ("TYPE_UINT64", np.uint64),
    "INT8": ("TYPE_INT8", np.int8),
    "INT16": ("TYPE_INT16", np.int16),
    "INT32": ("TYPE_INT32", np.int32),
    "INT64": ("TYPE_INT64", np.int64),
    "FP16": ("TYPE_FP16", np.float16),
    "BF16": ("TYPE_BF16", np.float32),  # tritonclient takes and gives float32 for it
    "FP32": ("TYPE_FP32", np.float32),
    "FP64": ("TYPE_FP64", np.float64),
    "BYTES": ("TYPE_STRING", np.object_),
}

LABELS = ["cat", "dog", "", "grüße"]  # of `labelled`, which has two classes more

SLOW_S = 0.4  # what `slow` and `tight` take for a batch
TIGHT_QUEUE = 2  # requests that may wait for `tight`


def values(datatype: str, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[Any]:
    """An array with the extremes of the dtype in front; BF16 values survive the cut to 16 bits."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    dtype = DATATYPES[datatype][1]
    if datatype == "BYTES":
        texts = [b"", "grüße ✓".encode(), b"a" * 300, *(b"text %d" % i for i in range(seed, seed + count))]
        return np.array(texts[:count], dtype=np.object_).reshape(shape)
    if datatype == "BOOL":
        return rng.integers(0, 2, count).astype(np.bool_).reshape(shape)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        found = rng.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
        found[:2] = [info.min, info.max][:count]
        return found.reshape(shape)
    return (rng.integers(-64, 64, count) / 4).astype(dtype).reshape(shape)


def write_repository(root: Path) -> Path:
    for datatype in DATATYPES:
        identity(root, f"batch_{datatype.lower()}", [(datatype, [WIDTH])], max_batch=MAX_BATCH_ROWS)
    identity(root, "plain_fp32", [("FP32", [2, 3])])
    identity(root, "any_fp32", [("FP32", [-1, -1])])
    identity(root, "any_bytes", [("BYTES", [-1])])
    identity(root, "pair", [("FP32", [WIDTH]), ("INT32", [2])], max_batch=MAX_BATCH_ROWS)
    identity(root, "versions", [("FP32", [WIDTH])], versions=(1, 3, 7), extra="version_policy { all {} }")
    identity(root, "slow", [("FP32", [WIDTH])], max_batch=MAX_BATCH_ROWS, delay_s=SLOW_S)
    tight = f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {TIGHT_QUEUE} allow_timeout_override: true }} }}"
    identity(root, "tight", [("FP32", [WIDTH])], max_batch=1, delay_s=SLOW_S, extra=tight)
    classes = f'output [ {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: {len(LABELS) + 2} label_filename: "labels.txt" }} ]'
    identity(root, "labelled", [("FP32", [len(LABELS) + 2])], max_batch=MAX_BATCH_ROWS, outputs=classes)
    (root / "labelled" / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    identity(root, "no_labels", [("FP32", [3])], outputs=classes.replace(str(len(LABELS) + 2), "3"))
    folder = root / "mlp" / "1"
    folder.mkdir(parents=True)
    write_mlp(folder / "model.onnx")
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_text("this is no ONNX file")
    (root / "misspelt" / "1").mkdir(parents=True)
    (root / "misspelt" / "config.pbtxt").write_text('backend: "identity"\nmax_batchsize: 4\n')
    return root


def identity(
    root: Path,
    name: str,
    tensors: list[tuple[str, list[int]]],
    *,
    max_batch: int = 0,
    versions: tuple[int, ...] = (1,),
    delay_s: float = 0,
    extra: str = "",
    outputs: str = "",
) -> None:
    """Inputs INPUT0, INPUT1 ... and outputs OUTPUT0 ... of the same kind (`outputs`: written like this instead)."""
    lines = [f'name: "{name}"', 'backend: "identity"', f"max_batch_size: {max_batch}", extra]
    for number, (datatype, dims) in enumerate(tensors):
        for side in ("input",) if outputs else ("input", "output"):
            kind = f"data_type: {DATATYPES[datatype][0]} dims: {dims}"
            lines.append(f'{side} {{ name: "{side.upper()}{number}" {kind} }}')
    lines.append(outputs)
    if delay_s:
        value = f'value {{ string_value: "{int(delay_s * 1e6)}" }}'
        lines.append(f'parameters {{ key: "execute_delay_us" {value} }}')
    for version in versions:
        (root / name / str(version)).mkdir(parents=True)
    (root / name / "config.pbtxt").write_text("\n".join(lines) + "\n")


def mlp_weights() -> tuple[npt.NDArray[np.float32], ...]:
    rng = np.random.default_rng(5)
    shapes = ((16, 32), (32,), (32, 5), (5,))
    return tuple(rng.standard_normal(shape).astype(np.float32) for shape in shapes)


def mlp_answer(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    w0, b0, w1, b1 = mlp_weights()
    return np.maximum(x @ w0 + b0, 0) @ w1 + b1


def write_mlp(path: Path) -> None:
    """x FP32[batch, 16] -> y FP32[batch, 5], one hidden layer."""
    from onnx import TensorProto, helper, numpy_helper

    names = ("w0", "b0", "w1", "b1")
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(w, name) for w, name in zip(mlp_weights(), names, strict=True)],
    )
    opset = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())
