"""The examples of python/fastserve/EMBEDDING.md: mypy --strict over all of them, then each as a program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "python" / "fastserve" / "EMBEDDING.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)

MYPY = """
[mypy]
strict = true
mypy_path = {root}/python
explicit_package_bases = true
[mypy-fastserve.*]
follow_imports = silent
[mypy-torch.*]
follow_imports = skip
[mypy-google.*,grpc.*,uvloop.*,openvino.*]
ignore_missing_imports = true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples as files, and the model that they load."""
    folder = tmp_path_factory.mktemp("examples")
    for number, text in enumerate(BLOCKS):
        (folder / f"example_{number}.py").write_text(text)
    weights = numpy_helper.from_array(np.random.default_rng(0).random((64, 10), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "w"], ["scores"])],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = folder / "models" / "digits" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(model, path)
    return folder


def test_there_is_one_for_every_section() -> None:
    assert len(BLOCKS) == 7


def test_they_are_typed(folder: Path) -> None:
    configuration = folder / "mypy.ini"
    configuration.write_text(MYPY.format(root=ROOT))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", configuration, *sorted(folder.glob("*.py"))],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_they_run(folder: Path, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", f"example_{number}.py"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, "")
