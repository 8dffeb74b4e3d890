"""Which backend runs a version, and what a worker is told."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fastserve import _core, errors, protos
from fastserve.lifecycle import backend_choice
from fastserve.lifecycle.repository import scan_repositories
from fastserve.lifecycle.settings import ModelDefaults
from fastserve.lifecycle.version_spec import VersionSpec

CANNOT = "cannot read it as ONNX: No conversion rule found for operations: Det-17"


class Core:
    """Refuses OpenVINO as told, and onnxruntime when told so."""

    def __init__(self, refusal: Exception | None, other: Exception | None = None) -> None:
        self.refusals = {"openvino": refusal, "onnxruntime": other}
        self.loads: list[tuple[str, dict[str, str]]] = []

    def load(self, spec: _core.LoadSpec, progress: Any = None) -> None:
        self.loads.append((spec.backend, dict(spec.parameters)))
        if (refusal := self.refusals[spec.backend]) is not None:
            raise refusal


def asked(**fields: Any) -> bytes:
    message: bytes = protos.message_class("inference.ModelConfig")(name="m", **fields).SerializeToString()
    return message


def spec(path: str = "/r/m/1/model.onnx", **fields: Any) -> VersionSpec:
    return VersionSpec("m", 1, "openvino", path, asked=asked(**fields), parameters=(("A", "1"),))


def test_onnx_that_openvino_cannot_run_goes_to_onnxruntime(caplog: pytest.LogCaptureFixture) -> None:
    core = Core(errors.InvalidArgument(CANNOT))
    with caplog.at_level(logging.INFO, "fastserve.lifecycle"):
        backend_choice.load(core, spec())
    (first, own), (second, parameters) = core.loads
    assert (first, own, second) == ("openvino", {"A": "1"}, "onnxruntime")
    assert parameters["fastserve.chosen_because"] == f"OpenVINO cannot run it: {CANNOT}"
    assert "A" not in parameters, "a parameter of OpenVINO's"
    assert [record.message for record in caplog.records] == [
        f"model m version 1 goes to onnxruntime: OpenVINO cannot run it: {CANNOT}"
    ]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (spec(backend="openvino"), errors.InvalidArgument(CANNOT)),  # asked for
        (spec("/r/m/1/model.xml"), errors.InvalidArgument(CANNOT)),
        (spec(), errors.InvalidArgument("cannot read it as ONNX: the file ends early")),
        (spec(), errors.InvalidArgument('config.input["q"]: the model has no such input')),
        (spec(), errors.Internal(CANNOT)),
    ],
)
def test_every_other_failure_stays_openvinos(given: VersionSpec, error: errors.FastserveError) -> None:
    core = Core(error)
    with pytest.raises(type(error)) as raised:
        backend_choice.load(core, given)
    assert raised.value is error
    assert len(core.loads) == 1


def test_when_neither_can_both_reasons_are_told() -> None:
    core = Core(errors.InvalidArgument(CANNOT), errors.FailedPrecondition("onnxruntime cannot be imported"))
    with pytest.raises(errors.InvalidArgument, match="Det-17; onnxruntime: onnxruntime cannot be imported"):
        backend_choice.load(core, spec())


@pytest.mark.parametrize(
    ("files", "config", "backend", "why"),
    [
        (["model.onnx"], "", "openvino", "model.onnx goes to OpenVINO, and to onnxruntime if"),
        (["model.onnx"], 'backend: "onnxruntime"', "onnxruntime", "the configuration says onnxruntime"),
        (
            ["model.onnx"],
            'platform: "onnxruntime_onnx"',
            "onnxruntime",
            "configuration says onnxruntime_onnx",
        ),
        (["model.py"], "", "python", "model.py goes to it"),
        (["model.py", "model.onnx"], 'backend: "python"', "python", "the configuration says python"),
        (["model.pt"], "", "pytorch", "model.pt goes to it"),
        (["model.pt2"], 'platform: "pytorch_libtorch"', "pytorch", "configuration says pytorch_libtorch"),
    ],
)
def test_the_backend_of_a_folder(
    tmp_path: Path, files: list[str], config: str, backend: str, why: str
) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("x")
    if config:
        (tmp_path / "m" / "config.pbtxt").write_text(config)
    (found,) = scan_repositories([tmp_path], ModelDefaults()).models
    assert [str(problem) for problem in found.problems] == []
    assert found.versions[1].backend == backend
    assert why in backend_choice.why(found.versions[1])


def test_what_a_worker_is_told(tmp_path: Path) -> None:
    message = protos.message_class("inference.ModelConfig")(name="m", max_batch_size=8)
    message.input.add(name="x", data_type=11, dims=[3])
    given = VersionSpec(
        "m", 1, "python", "/r/m/1/model.py", max_batch_rows=8, asked=message.SerializeToString()
    )
    config = json.loads(given.to_core().parameters["fastserve.model_config"])
    assert (config["name"], config["backend"], config["max_batch_size"]) == ("m", "python", 8)
    assert config["default_model_filename"] == "model.py"
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    silent = VersionSpec("m", 1, "python", "/r/m/1/model.py", asked=asked())
    assert "max_batch_size" not in json.loads(silent.to_core().parameters["fastserve.model_config"])
    assert spec().to_core().parameters == {"A": "1"}
