"""@model: our own form of a Python model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import python_model, request, tensor

from fastserve import errors

HEAD = """
    from typing import Annotated, TypedDict
    import numpy as np
    from fastserve.errors import InvalidArgument
    from fastserve.worker.models import model

    SEEN = []
"""
HALVES = (
    HEAD
    + """
    @model(inputs={"x": ("FP32", [4])}, outputs={"y": ("FP32", [2])}, max_batch_rows=32)
    def halves(x):
        SEEN.append(x.shape)
        return x[:, :2] / 2
"""
)


def rows(count: int, value: float = 1.0) -> Any:
    return np.full((count, 4), value, np.float32)


def test_a_function_gets_all_rows_of_a_batch(tmp_path: Path) -> None:
    model: Any = python_model(tmp_path, HALVES)
    described = model.describe()
    assert (described.max_batch_rows, described.inputs[0].shape, described.outputs[0].shape) == (
        32,
        [-1, 4],
        [-1, 2],
    )
    first, second = model.execute([request(x=rows(2, 2)), request(x=rows(1, 4))])
    assert first.outputs["y"].tolist() == [[1, 1], [1, 1]]
    assert second.outputs["y"].tolist() == [[2, 2]]
    assert model._target.__globals__["SEEN"] == [(3, 4)], "one call"
    assert model.execute_whole(3, {"x": rows(3)})["y"].shape == (3, 2)


def test_types_from_annotations(tmp_path: Path) -> None:
    code = (
        HEAD
        + """
    class Scores(TypedDict):
        total: Annotated[np.ndarray, "FP64", 1]
        name: Annotated[np.ndarray, "BYTES", 1]

    @model(max_batch_rows=4)
    def scores(x: Annotated[np.ndarray, "FP32", -1], k: Annotated[np.ndarray, "INT64", 1]) -> Scores:
        names = np.array([[b"row %d" % i] for i in range(len(x))], object)
        return {"total": x.sum(1, dtype=np.float64, keepdims=True) * k, "name": names}
"""
    )
    model = python_model(tmp_path, code)
    described = model.describe()
    assert [(t.name, t.datatype, t.shape) for t in (*described.inputs, *described.outputs)] == [
        ("x", "FP32", [-1, -1]),
        ("k", "INT64", [-1, 1]),
        ("total", "FP64", [-1, 1]),
        ("name", "BYTES", [-1, 1]),
    ]
    (answer,) = model.execute([request(x=rows(2), k=np.array([[1], [2]]))])
    assert answer.outputs["total"].tolist() == [[4], [8]]
    assert answer.outputs["name"].tolist() == [[b"row 0"], [b"row 1"]]


def test_one_annotated_array_is_called_output(tmp_path: Path) -> None:
    code = (
        HEAD
        + """
    @model()
    def total(x: Annotated[np.ndarray, "FP32", -1]) -> Annotated[np.ndarray, "FP32", 1]:
        return [x.sum()]
"""
    )
    model = python_model(tmp_path, code)
    assert model.describe().max_batch_rows == 0
    one, two = model.execute([request(x=np.ones(3, np.float32)), request(x=np.ones(5, np.float32))])
    assert (one.outputs["output"].tolist(), two.outputs["output"].tolist()) == ([3], [5])
    assert one.outputs["output"].dtype == np.float32


CLASS = (
    HEAD
    + """
    @model(inputs={"x": ("FP32", [4])}, outputs={"a": ("FP32", [4]), "b": ("FP32", [4])}, max_batch_rows=8)
    class Scaled:
        def __init__(self, args):
            self.name = args["model_name"]
            self.closed = False
        def __call__(self, x):
            return x + 1, x + 2
        def close(self):
            self.closed = True
"""
)


def test_a_class_is_made_called_and_closed(tmp_path: Path) -> None:
    model: Any = python_model(tmp_path, CLASS)
    assert model._target.name == "m"
    (answer,) = model.execute([request(x=rows(1))])
    assert [answer.outputs[name][0, 0] for name in ("a", "b")] == [2, 3]
    model.finalize()
    assert model._target.closed


PER_REQUEST = (
    HEAD
    + """
    @model(inputs={"x": ("FP32", [4])}, outputs={"y": ("FP32", [4])}, max_batch_rows=8)
    def picky(x, request):
        if x[0, 0] == 9:
            raise InvalidArgument(f'inputs["x"]: got 9 in request {request.id}')
        if x[0, 0] == 8:
            raise KeyError("eight")
        if x[0, 0] == 7:
            return x[:, :3]
        return x * request.parameters.get("factor", 1)
"""
)


def test_per_request_a_fault_stays_with_its_request(tmp_path: Path) -> None:
    model: Any = python_model(tmp_path, PER_REQUEST)
    assert model.execute_whole is None, "the channel hands over requests"
    good = request(x=rows(1))
    good.parameters["factor"] = 3
    answers = model.execute([good, *(request(x=rows(1, v)) for v in (9, 8, 7))])
    assert answers[0].outputs["y"].tolist() == [[3, 3, 3, 3]]
    assert [answer.error for answer in answers[1:]] == [
        (3, 'inputs["x"]: got 9 in request '),
        (13, "KeyError: 'eight'"),
        (13, 'outputs["y"].shape[1]: got 3, want 4'),
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ("None", "the model returned None"),
        ("{}", 'outputs\\["y"\\]: missing in the answer'),
        ('{"z": x}', 'outputs\\["z"\\]: the model has no such output'),
        ("(x, x)", "outputs: got 2, want 1"),
        ("x", 'outputs\\["y"\\].shape\\[1\\]: got 4, want 2'),
        ("x[:1, :2]", 'outputs\\["y"\\].shape\\[0\\]: got 1, want 2'),
        ("x[:, :2].astype(np.float64)", 'outputs\\["y"\\].datatype: got FP64, want FP32'),
    ],
)
def test_a_bad_result_names_the_output(tmp_path: Path, result: str, text: str) -> None:
    model: Any = python_model(tmp_path, HALVES.replace("x[:, :2] / 2", result))
    with pytest.raises(errors.Internal, match=text):
        model.execute_whole(2, {"x": rows(2)})


@pytest.mark.parametrize(
    ("decorator", "text"),
    [
        ('inputs={"x": ("FP31", [4])}, outputs={"y": ("FP32", [2])}', 'datatype: got "FP31"'),
        ('inputs={"x": ("FP32", [0])}, outputs={"y": ("FP32", [2])}', "dims: got \\[0\\]"),
        ('inputs={"z": ("FP32", [4])}, outputs={"y": ("FP32", [2])}', 'takes no parameter "z"'),
        ('inputs={"x": ("FP32", [4])}', "outputs are missing"),
        ('outputs={"y": ("FP32", [2])}', "parameter 'x' has no type"),
        (
            'inputs={"x": ("FP32", [4])}, outputs={"y": ("FP32", [2])}, max_batch_rows=-1',
            "max_batch_rows: got -1",
        ),
    ],
)
def test_a_wrong_declaration_is_refused_at_load(tmp_path: Path, decorator: str, text: str) -> None:
    code = HEAD + f"\n    @model({decorator})\n    def f(x):\n        return x\n"
    with pytest.raises(errors.InvalidArgument, match=text):
        python_model(tmp_path, code)


def test_two_models_in_a_file_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="got 2 models"):
        python_model(tmp_path, HALVES + HALVES.replace(HEAD, "").replace("def halves", "def other"))


def test_the_configuration_may_lower_the_batch_and_contradict_nothing(tmp_path: Path) -> None:
    assert python_model(tmp_path, HALVES, {"max_batch_size": 4}).describe().max_batch_rows == 4
    with pytest.raises(errors.InvalidArgument, match=r'config\.input\["x"\]: got FP64, want FP32'):
        python_model(tmp_path, HALVES, {"max_batch_size": 4, "input": [tensor("x", "TYPE_FP64", 4)]})
    with pytest.raises(errors.InvalidArgument, match="no such tensor"):
        python_model(tmp_path, HALVES, {"max_batch_size": 4, "output": [tensor("q", "TYPE_FP32", 4)]})
    single = HALVES.replace("max_batch_rows=32", "max_batch_rows=0")
    with pytest.raises(errors.InvalidArgument, match=r"config\.max_batch_size: got 4"):
        python_model(tmp_path, single, {"max_batch_size": 4})
