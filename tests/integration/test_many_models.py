"""A start with many models: all serve, a model that was asked is prepared in full, one reload touches no other. With 1,000:
benchmarks/scenarios/many_models.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from harness.swapper import Asking, version_model

from fastserve.lifecycle.light_start import MANY_VERSIONS

MODELS = MANY_VERSIONS + 2
RENEWED_S = 60.0  # on a busy machine


def prepared(asking: Asking, model: str) -> str:
    return str(asking.call("GET", f"/v2/models/{model}")[1]["properties"]["prepared"])


def load_times(server: Any) -> dict[str, float]:
    return {
        name: value
        for name, value in server.scrape().items()
        if name.startswith("fastserve_model_load_seconds")
    }


def test_many_models_start_light_and_a_reload_touches_one(start: Any, tmp_path: Path) -> None:
    models = tmp_path / "models"
    content = version_model(1, 8)
    for number in range(MODELS):
        (models / f"m{number}" / "1").mkdir(parents=True)
        (models / f"m{number}" / "1" / "model.onnx").write_bytes(content)
    server = start(models, "--model-control-mode", "explicit", "--load-model", "*")
    asking = Asking(server.http)
    index = asking.call("POST", "/v2/repository/index")[1]
    assert [entry["state"] for entry in index] == ["READY"] * MODELS
    assert prepared(asking, "m3").startswith("dynamic")

    # Asked: prepared in full, and it answers all the while.
    assert asking.version("m3") == 1
    until = time.monotonic() + RENEWED_S
    while prepared(asking, "m3").startswith("dynamic") and time.monotonic() < until:
        assert asking.version("m3") == 1
        time.sleep(0.05)
    assert prepared(asking, "m3").startswith("static")
    assert prepared(asking, "m4").startswith("dynamic")

    before = load_times(server)
    (models / "m0" / "2").mkdir()
    (models / "m0" / "2" / "model.onnx").write_bytes(version_model(2, 8))
    assert asking.call("POST", "/v2/repository/models/m0/load")[0] == 200
    assert asking.version("m0") == 2
    assert asking.version("m7") == 1
    after = load_times(server)
    others = {name for name in before if 'model="m0"' not in name and 'model="m7"' not in name}
    assert len(others) == MODELS - 2
    assert {name: after[name] for name in others} == {name: before[name] for name in others}
    asking.close()
