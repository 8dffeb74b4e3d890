"""Scans of repositories on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle import ModelDefaults, Scan, scan_repositories
from fastserve.lifecycle.batching_parameters import BatchingParameters


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def scan(*repositories: Path) -> Scan:
    return scan_repositories(repositories)


def problems(*repositories: Path) -> list[str]:
    return [str(problem) for problem in scan(*repositories).problems]


def test_an_empty_repository(tmp_path: Path) -> None:
    assert scan(tmp_path).models == ()
    assert scan(tmp_path).wanted == {}


def test_a_model_without_config(tmp_path: Path) -> None:
    path = put(tmp_path / "m/1/model.onnx")
    spec = scan(tmp_path).wanted["m"][1]
    assert (spec.backend, spec.path, spec.max_batch_rows) == ("openvino", str(path), -1)


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.tflite", "model.pdmodel"])
def test_formats_by_file_name(name: str, tmp_path: Path) -> None:
    path = put(tmp_path / "m/1" / name)
    assert scan(tmp_path).wanted["m"][1].path == str(path)


def test_saved_models(tmp_path: Path) -> None:
    put(tmp_path / "a/1/model.savedmodel/saved_model.pb")
    put(tmp_path / "b/1/saved_model.pb")
    wanted = scan(tmp_path).wanted
    assert wanted["a"][1].path == str(tmp_path / "a/1/model.savedmodel")
    assert wanted["b"][1].path == str(tmp_path / "b/1")
    assert {wanted["a"][1].backend, wanted["b"][1].backend} == {"openvino"}


def test_identity_needs_no_file(tmp_path: Path) -> None:
    put(tmp_path / "m/config.pbtxt", 'backend: "identity"')
    (tmp_path / "m/1").mkdir()
    spec = scan(tmp_path).wanted["m"][1]
    assert (spec.backend, spec.path) == ("identity", "")


def test_folders_that_are_no_versions(tmp_path: Path) -> None:
    for name in ("2", "10", "01", "007", "0", "v3", "1a", "-4", "٣", "configs"):
        put(tmp_path / "m" / name / "model.onnx")
    put(tmp_path / "m/config.pbtxt", "version_policy { all { } }")
    put(tmp_path / "m/11", "a file")
    found = scan(tmp_path)
    assert list(found.wanted["m"]) == [2, 10]
    assert found.problems == []
    assert sorted(found.models[0].notes) == [
        f"folder {name} is ignored: version folders are named 1, 2, ..." for name in ("0", "007", "01")
    ]


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", [10]),
        ("version_policy { latest { num_versions: 2 } }", [9, 10]),
        ("version_policy { latest { num_versions: 20 } }", [1, 9, 10]),
        ("version_policy { all { } }", [1, 9, 10]),
        ("version_policy { specific { versions: [ 9, 1 ] } }", [1, 9]),
    ],
)
def test_version_policy(policy: str, versions: list[int], tmp_path: Path) -> None:
    for number in (1, 9, 10):
        put(tmp_path / f"m/{number}/model.onnx")
    put(tmp_path / "m/config.pbtxt", policy)
    assert list(scan(tmp_path).wanted["m"]) == versions


def test_a_specific_version_that_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/config.pbtxt", "version_policy { specific { versions: [ 1, 7 ] } }")
    found = scan(tmp_path)
    assert list(found.wanted["m"]) == [1]
    assert [(s.model, s.version, s.state) for s in found.failures] == [("m", 7, "FAILED")]
    assert "version 7 of version_policy.specific has no folder" in found.failures[0].reason


def test_a_broken_model_does_not_touch_the_others(tmp_path: Path) -> None:
    put(tmp_path / "good/1/model.onnx")
    put(tmp_path / "bad/1/model.onnx")
    put(tmp_path / "bad/config.pbtxt", "\nfoo: 1\nsequence_batching { }")
    found = scan(tmp_path)
    assert list(found.wanted) == ["good"]
    (failure,) = found.failures
    assert (failure.model, failure.version) == ("bad", None)
    assert failure.reason == (
        "bad/config.pbtxt:2: unknown field 'foo'; bad/config.pbtxt:3: sequence_batching is not supported yet"
    )


def test_a_broken_version_does_not_touch_the_others(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    (tmp_path / "m/2").mkdir()
    put(tmp_path / "m/config.pbtxt", "version_policy { all { } }")
    found = scan(tmp_path)
    assert list(found.wanted["m"]) == [1]
    assert [
        (s.version, s.reason.startswith("m/2: has no model file: looked for model.xml"))
        for s in found.failures
    ] == [(2, True)]


def test_what_a_version_folder_may_lack_or_have_too_much_of(tmp_path: Path) -> None:
    put(tmp_path / "both/1/model.onnx")
    put(tmp_path / "both/1/model.xml")
    put(tmp_path / "empty/1/model.onnx", "")
    put(tmp_path / "other/1/net.onnx")
    (tmp_path / "none").mkdir()
    assert problems(tmp_path) == [
        "both/1: has several model files (model.xml, model.onnx): set default_model_filename",
        "empty/1: 'model.onnx' is empty",
        "none: has no version folder (a folder named 1, 2, ...)",
        "other/1: has no model file: looked for model.xml, model.onnx, model.savedmodel, saved_model.pb, "
        "model.tflite, model.pdmodel, model.py, model.pt, model.pt2, model.plan",
    ]


def test_default_model_filename(tmp_path: Path) -> None:
    put(tmp_path / "m/1/net.onnx")
    put(tmp_path / "m/1/model.xml")
    put(tmp_path / "m/config.pbtxt", 'default_model_filename: "net.onnx"')
    assert scan(tmp_path).wanted["m"][1].path == str(tmp_path / "m/1/net.onnx")
    put(tmp_path / "m/config.pbtxt", 'default_model_filename: "gone.onnx"')
    assert problems(tmp_path) == ["m/1: has no model file: looked for gone.onnx"]
    put(tmp_path / "m/1/net.bin")
    put(tmp_path / "m/config.pbtxt", 'default_model_filename: "net.bin"')
    assert problems(tmp_path) == ["m/1: no backend reads 'net.bin'; name one in config.pbtxt or model.yaml"]


def test_links_stay_inside(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/secret.onnx")
    repository = tmp_path / "repository"
    put(repository / "store/1/model.onnx")
    for name in ("file", "version", "model_file_inside"):
        (repository / name).mkdir()
    (repository / "file/1").mkdir()
    os.symlink(outside, repository / "file/1/model.onnx")
    os.symlink(outside.parent, repository / "version/1")
    os.symlink(outside.parent, repository / "whole")
    (repository / "config").mkdir()
    os.symlink(outside, repository / "config/config.pbtxt")
    (repository / "model_file_inside/1").mkdir()
    os.symlink("../../store/1/model.onnx", repository / "model_file_inside/1/model.onnx")
    os.symlink("store", repository / "alias")
    found = scan(repository)
    assert sorted(found.wanted) == ["alias", "model_file_inside", "store"]
    real = outside.resolve()
    assert [str(problem) for problem in found.problems] == [
        f"config: 'config/config.pbtxt' is a link that leaves the repository (to {real})",
        f"file/1: 'file/1/model.onnx' is a link that leaves the repository (to {real})",
        f"version/1: 'version/1' is a link that leaves the repository (to {real.parent})",
        f"whole: 'whole' is a link that leaves the repository (to {real.parent})",
    ]


def test_a_default_model_filename_cannot_follow_a_link_out(tmp_path: Path) -> None:
    put(tmp_path / "outside/model.onnx")
    repository = tmp_path / "repository"
    (repository / "m/1").mkdir(parents=True)
    os.symlink(tmp_path / "outside", repository / "m/1/sub")
    put(repository / "m/config.pbtxt", 'default_model_filename: "sub/model.onnx"')
    assert "leaves the repository" in problems(repository)[0]


def test_broken_links(tmp_path: Path) -> None:
    (tmp_path / "m/1").mkdir(parents=True)
    os.symlink("gone.onnx", tmp_path / "m/1/model.onnx")
    assert problems(tmp_path) == ["m/1: 'model.onnx' is a broken link"]
    (tmp_path / "loop/1").mkdir(parents=True)
    os.symlink("model.onnx", tmp_path / "loop/1/model.onnx")
    assert problems(tmp_path)[0].startswith("loop/1: ")


def test_several_repositories(tmp_path: Path) -> None:
    put(tmp_path / "one/a/1/model.onnx")
    put(tmp_path / "two/b/1/model.onnx")
    assert sorted(scan(tmp_path / "one", tmp_path / "two").wanted) == ["a", "b"]
    assert sorted(scan(tmp_path / "one", tmp_path / "one/../one").wanted) == ["a"]  # the same one twice


def test_a_model_in_two_repositories(tmp_path: Path) -> None:
    put(tmp_path / "one/a/1/model.onnx")
    put(tmp_path / "one/b/1/model.onnx")
    put(tmp_path / "two/a/1/model.onnx")
    found = scan(tmp_path / "one", tmp_path / "two")
    assert list(found.wanted) == ["b"]
    assert [str(p) for p in found.problems] == [
        f"a: the model is in two repositories: {tmp_path / 'one'} and {tmp_path / 'two'}"
    ]


def test_names_of_models(tmp_path: Path) -> None:
    for name in ("good-1.x", "bad name", ".hidden", "lost+found"):
        put(tmp_path / name / "1/model.onnx")
    put(tmp_path / "README.md")
    found = scan(tmp_path)
    assert list(found.wanted) == ["good-1.x"]
    assert [p.model for p in found.problems] == ["bad name"]


def test_config_files_that_are_none(tmp_path: Path) -> None:
    put(tmp_path / "a/1/model.onnx")
    (tmp_path / "a/config.pbtxt").write_bytes(b'name: "a"\n\xff')
    put(tmp_path / "b/1/model.onnx")
    (tmp_path / "b/config.pbtxt").mkdir()
    put(tmp_path / "c/1/model.onnx")
    put(tmp_path / "c/config.pbtxt", "#" * (1 << 20) + "#")
    assert problems(tmp_path) == [
        "a/config.pbtxt:2: is not UTF-8 text",
        "b/config.pbtxt: is not a file",
        "c/config.pbtxt: has 1048577 bytes, at most 1048576 are read",
    ]


def test_repositories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        scan(tmp_path / "missing")
    with pytest.raises(InvalidArgument, match="is not a folder"):
        scan(put(tmp_path / "file"))


def test_parameters_of_a_backend(tmp_path: Path) -> None:
    put(tmp_path / "a/1/model.onnx")
    put(tmp_path / "b/1/model.onnx")
    put(tmp_path / "b/config.pbtxt", 'parameters { key: "CACHE_DIR" value { string_value: "mine" } }')
    put(tmp_path / "c/config.pbtxt", 'backend: "identity"')
    (tmp_path / "c/1").mkdir()
    wanted = scan_repositories([tmp_path], ModelDefaults({"openvino": {"CACHE_DIR": "/cache"}})).wanted
    assert dict(wanted["a"][1].parameters) == {"CACHE_DIR": "/cache"}
    assert dict(wanted["b"][1].parameters) == {"CACHE_DIR": "mine"}
    assert dict(wanted["c"][1].parameters) == {}


def test_an_unchanged_repository_makes_equal_specs(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/config.pbtxt", 'parameters { key: "A" value { string_value: "1" } }')
    before = scan(tmp_path).wanted
    assert scan(tmp_path).wanted == before
    put(tmp_path / "m/config.pbtxt", 'parameters { key: "A" value { string_value: "2" } }')
    assert scan(tmp_path).wanted != before


def test_one_configuration_per_model(tmp_path: Path) -> None:
    put(tmp_path / "a/1/model.onnx")
    put(tmp_path / "a/model.yaml", "max_batch_size: 4\n")
    put(tmp_path / "b/1/model.onnx")
    put(tmp_path / "b/model.yaml", "max_batch_size: 4\n")
    put(tmp_path / "b/config.pbtxt", "max_batch_size: 4\n")
    put(tmp_path / "c/1/model.onnx")
    put(tmp_path / "c/model.yaml", "max_batch_sizes: 4\n")
    assert scan(tmp_path).wanted["a"][1].max_batch_rows == 4
    assert problems(tmp_path) == [
        "b/model.yaml: there is a config.pbtxt as well: a model has one of the two",
        "c/model.yaml:1: unknown key 'max_batch_sizes' (did you mean max_batch_size?)",
    ]


WARM_UP = (
    'model_warmup {\n name: "w" batch_size: 1 inputs { key: "x" value {\n'
    ' data_type: TYPE_FP32 dims: [ 2 ]\n input_data_file: "row.bin" } } }'
)


def test_data_for_warm_up(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/config.pbtxt", WARM_UP)
    put(tmp_path / "m/warmup/row.bin", "12345678")
    found = scan(tmp_path)
    assert found.wanted["m"][1].scheduling.warm_up[0].inputs["x"].data == b"12345678"
    put(tmp_path / "m/warmup/row.bin", "12345678--")
    longer = scan(tmp_path)
    assert longer.wanted["m"][1].scheduling == found.wanted["m"][1].scheduling
    assert longer.models[0].notes == (
        "warmup/row.bin: the last 2 bytes are without effect: a warm-up has one row",
    )
    put(tmp_path / "m/warmup/row.bin", "87654321")
    assert scan(tmp_path).wanted != found.wanted  # other data is another load


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "'row.bin': does not exist"), ("1234567", "has 7 bytes, want at least 8 for one row FP32[2]")],
)
def test_data_for_warm_up_that_does_not_fit(content: str | None, message: str, tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/config.pbtxt", WARM_UP)
    if content is not None:
        put(tmp_path / "m/warmup/row.bin", content)
    (problem,) = problems(tmp_path)
    assert problem.startswith('m/config.pbtxt:4: model_warmup.inputs["x"].input_data_file: ')
    assert message in problem


def test_data_for_warm_up_stays_in_the_repository(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    put(tmp_path / "outside.bin", "12345678")
    put(repository / "m/1/model.onnx")
    put(repository / "m/config.pbtxt", WARM_UP)
    (repository / "m/warmup").mkdir()
    (repository / "m/warmup/row.bin").symlink_to(tmp_path / "outside.bin")
    (problem,) = problems(repository)
    assert "is a link that leaves the repository" in problem


def test_batching_parameters_of_a_version(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/2/model.onnx")
    put(tmp_path / "m/model.yaml", "max_batch_size: 8\nversions: all\nscheduling: {max_queue_delay_us: 5}\n")
    put(tmp_path / "m/2/batching_params.pbtxt", "max_batch_size { value: 8 } num_batch_threads { value: 3 }")
    wanted = scan(tmp_path).wanted["m"]
    assert [sum(g.count for g in wanted[v].scheduling.instances) for v in (1, 2)] == [0, 3]
    assert [wanted[v].scheduling.max_queue_delay_us for v in (1, 2)] == [5, 5]
    put(tmp_path / "m/2/batching_params.pbtxt", "batch_timeout_micros { value: 6 }")
    assert problems(tmp_path) == [
        "m/2/batching_params.pbtxt: max_queue_delay_us: got 6, but the model's configuration says 5"
    ]
    put(tmp_path / "m/2/batching_params.pbtxt", "\npad_variable_length_inputs: true")
    assert problems(tmp_path) == [
        "m/2/batching_params.pbtxt:2: pad_variable_length_inputs is not supported yet"
    ]
    assert list(scan(tmp_path).wanted["m"]) == [1]


def test_batching_parameters_for_all_models(tmp_path: Path) -> None:
    put(tmp_path / "open/1/model.onnx")
    put(tmp_path / "said/1/model.onnx")
    put(tmp_path / "said/model.yaml", "max_batch_size: 4\nscheduling: {max_queue_delay_us: 5}\n")
    put(tmp_path / "own/1/model.onnx")
    put(tmp_path / "own/1/batching_params.pbtxt", "max_batch_size { value: 16 }")
    given = BatchingParameters(max_batch_rows=32, max_queue_delay_us=9, allowed_batch_sizes=(8, 32))
    wanted = scan_repositories([tmp_path], ModelDefaults(batching=given)).wanted
    rows = {name: versions[1].max_batch_rows for name, versions in wanted.items()}
    delays = {name: versions[1].scheduling.max_queue_delay_us for name, versions in wanted.items()}
    allowed = {name: versions[1].scheduling.allowed_batch_sizes for name, versions in wanted.items()}
    assert rows == {"open": 32, "said": 4, "own": 16}
    assert delays == {"open": 9, "said": 5, "own": 9}
    assert allowed == {"open": (8, 32), "said": (), "own": ()}


def test_the_target_of_the_server_holds_where_a_model_says_none(tmp_path: Path) -> None:
    put(tmp_path / "open/1/model.onnx")
    put(tmp_path / "none/1/model.onnx")
    put(tmp_path / "none/model.yaml", "scheduling: {target_p99_ms: 0}\n")
    put(tmp_path / "own/1/model.onnx")
    put(tmp_path / "own/config.pbtxt", 'parameters { key: "target_p99_ms" value { string_value: "2.5" } }')
    wanted = scan_repositories([tmp_path], ModelDefaults(target_p99_ms=30)).wanted
    targets = {name: versions[1].scheduling.target_p99_ms for name, versions in wanted.items()}
    assert targets == {"open": 30, "none": 0, "own": 2.5}
    assert dict(wanted["own"][1].parameters) == {}  # it is not the backend's
