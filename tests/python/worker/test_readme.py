"""The models of worker/README.md open as they stand there, and answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import python_model, request

README = Path(__file__).resolve().parents[3] / "python" / "fastserve" / "worker" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
X = np.ones((2, 4), np.float32)

WANT: list[dict[str, Any]] = [
    {"y": [[0.5, 0.5]] * 2},
    {"total": [[4]] * 2, "name": [[b"row"]] * 2},
    {"low": [[0] * 4] * 2, "high": [[2] * 4] * 2},
    {"y": [[1] * 4] * 2},
    {"y": [[2] * 4] * 2},
]


@pytest.mark.parametrize(("code", "want"), list(zip(BLOCKS, WANT, strict=True)))
def test_an_example_answers(tmp_path: Path, code: str, want: dict[str, Any]) -> None:
    model = python_model(tmp_path, code)
    (answer,) = model.execute([request(x=X)])
    assert answer.error is None
    assert {name: array.tolist() for name, array in answer.outputs.items()} == want
    model.finalize()
