"""instance_group of KIND_GPU: which backend that is, where its instances go, and what is refused. No GPU is involved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastserve.gpu import backends
from fastserve.lifecycle import Scan, scan_repositories
from fastserve.lifecycle.version_spec import VersionSpec
from fastserve.worker.words import CONFIG_PARAMETER


@pytest.fixture(autouse=True)
def lane(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a build with the GPU lane."""
    monkeypatch.setattr(backends, "has_lane", lambda: True)


def scanned(repository: Path, config: str, file: str = "model.pt2") -> Scan:
    folder = repository / "m" / "1"
    folder.mkdir(parents=True)
    (folder / file).write_text("x")
    (repository / "m" / "config.pbtxt").write_text(config)
    return scan_repositories([repository])


def spec_of(repository: Path, config: str, file: str = "model.pt2") -> VersionSpec:
    found = scanned(repository, config, file)
    assert not found.problems
    return found.wanted["m"][1]


def test_pytorch_on_a_gpu_is_captured_in_this_process(tmp_path: Path) -> None:
    config = 'backend: "pytorch" max_batch_size: 8 instance_group { kind: KIND_GPU gpus: [ 0, 2 ] count: 2 }'
    spec = spec_of(tmp_path, config)
    assert (spec.backend, Path(spec.path).name) == ("pytorch_gpu", "model.pt2")
    assert [(group.gpu, group.count) for group in spec.scheduling.instances] == [("0", 2), ("2", 2)]
    core = spec.to_core()
    assert [(group.gpu, group.count) for group in core.groups] == [("0", 2), ("2", 2)]
    told = json.loads(core.parameters[CONFIG_PARAMETER])
    assert (told["max_batch_size"], told["default_model_filename"]) == (8, "model.pt2")


@pytest.mark.parametrize("group", ["", "instance_group { kind: KIND_CPU }"])
def test_pytorch_elsewhere_stays_in_worker_processes(tmp_path: Path, group: str) -> None:
    assert spec_of(tmp_path, f'backend: "pytorch" {group}').backend == "pytorch"


def test_the_file_name_alone_decides_as_well(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "instance_group { kind: KIND_GPU }", "model.pt")
    assert spec.backend == "pytorch_gpu"
    assert [group.gpu for group in spec.scheduling.instances] == [""], "the backend decides"


def test_onnx_runtime_is_told_the_device(tmp_path: Path) -> None:
    config = 'backend: "onnxruntime" instance_group { kind: KIND_GPU gpus: [ 1 ] }'
    spec = spec_of(tmp_path, config, "model.onnx")
    assert spec.backend == "onnxruntime"
    assert dict(spec.parameters)["device"] == "cuda:1"


@pytest.mark.parametrize(
    ("config", "file", "text"),
    [
        ("instance_group { kind: KIND_GPU }", "model.onnx", "KIND_GPU, but openvino runs on the CPU"),
        (
            'backend: "onnxruntime" instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }',
            "model.onnx",
            "got 0, 1; onnxruntime runs on one GPU",
        ),
        (
            "instance_group { kind: KIND_CPU gpus: [ 0 ] }",
            "model.pt2",
            "gpus goes with KIND_GPU, got KIND_CPU",
        ),
    ],
)
def test_what_has_no_gpu_side(tmp_path: Path, config: str, file: str, text: str) -> None:
    (problem,) = scanned(tmp_path, config, file).problems
    assert text in problem.message


def test_a_build_without_the_lane_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "has_lane", lambda: False)
    (problem,) = scanned(tmp_path, "instance_group { kind: KIND_GPU }").problems
    assert problem.message == "instance_group: KIND_GPU, but fastserve was built without the GPU lane"
