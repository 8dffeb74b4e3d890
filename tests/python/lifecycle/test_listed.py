"""Files that list models: what of them has an effect, what is a note, what is refused and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastserve.errors import InvalidArgument, NotFound
from fastserve.lifecycle import Repositories
from fastserve.lifecycle.listed import listing, model_list
from fastserve.lifecycle.listed.json_lines import JsonError, read_json
from fastserve.lifecycle.listed.listing import Listing
from fastserve.lifecycle.listed.model_list import ModelList, lists_of
from fastserve.lifecycle.listed.models_yaml import read_models_yaml
from fastserve.lifecycle.listed.openvino import read_config_json
from fastserve.lifecycle.listed.tensorflow import read_model_config_list
from fastserve.lifecycle.place import ListedModel
from fastserve.lifecycle.settings import VersionPolicy


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- TensorFlow Serving


def tensorflow(text: str) -> Listing:
    return read_model_config_list(text, "models.config")


def test_a_model_config_list() -> None:
    found = tensorflow(
        """# as TensorFlow Serving's documentation has it
model_config_list {
  config {
    name: 'first'
    base_path: '/models/first'
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 43 versions: 42 } }
    version_labels { key: 'stable' value: 42 }
    version_labels { key: 'canary' value: 43 }
  }
  config: [ { name: "all", base_path: "/m/a" model_version_policy: { all: {} } },
            { name: "two", base_path: "s3://b/two" model_version_policy { latest { num_versions: 2 } } } ]
}"""
    )
    first, everything, two = found.models
    assert (first.name, first.base_path, first.line) == ("first", "/models/first", 3)
    assert first.version_policy == VersionPolicy(specific=(42, 43))
    assert first.labels == (("canary", ((43, 1.0),)), ("stable", ((42, 1.0),)))
    assert first.leading_zeros
    assert everything.version_policy == VersionPolicy(latest=0)
    assert (two.version_policy, two.base_path) == (VersionPolicy(latest=2), "s3://b/two")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("model_config_list {\n config { nam: 'x' } }", "2: unknown field 'config.nam' (did you mean name?)"),
        ("model_config_list { config { base_path: '/x' } }", "1: name is missing"),
        ("model_config_list { config {\nname: 'x' } }", "1: base_path is missing"),
        (
            "model_config_list { config {\nname: 'x'\nbase_path: 'x' } }",
            "3: base_path: got 'x', want an absolute path",
        ),
        ("model_config_list { config {\nname: '/' base_path: '/x' } }", "2: name: '/' is no model name"),
        (
            "model_config_list { config { name: 'x' base_path: '/x'\nmodel_platform: 'caffe' } }",
            "2: model_platform: got 'caffe', want tensorflow",
        ),
        (
            "model_config_list { config { name: 'x' base_path: '/x'\nmodel_version_policy { specific { versions: 0 } } } }",
            "2: model_version_policy.specific.versions: got 0, want at least 1",
        ),
        (
            "model_config_list { config { name: 'x' base_path: '/x'\nmodel_version_policy { specific { } } } }",
            "2: model_version_policy.specific: versions is empty",
        ),
        (
            "model_config_list { config { name: 'x' base_path: '/x'\nversion_labels { key: 's' value: 0 } } }",
            "2: version_labels: 's': got version 0, want at least 1",
        ),
        (
            "model_config_list { config { name: 'x' base_path: '/x'\nversion_labels { key: '1s' value: 1 } } }",
            '2: version_labels: labels["1s"]: want a letter',
        ),
        (
            "model_config_list { config { name: 'x' base_path: '/x' }\nconfig { name: 'x' base_path: '/y' } }",
            "2: name: 'x' is given twice (first in line 1)",
        ),
        ("custom_model_config { }", "1: custom_model_config is not supported: list the models"),
        ("model_config_list { config {", "1: Expected"),
    ],
)
def test_what_a_model_config_list_may_not_say(text: str, error: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        tensorflow(text)
    assert str(raised.value).startswith(f"models.config:{error}")


def test_logging_of_requests_is_a_note() -> None:
    text = "model_config_list { config { name: 'x' base_path: '/x' logging_config { sampling_config { sampling_rate: 0.1 } } } }"
    assert tensorflow(text).models[0].notes == ("logging_config is without effect: requests are not logged",)


# --- OpenVINO Model Server


def openvino(**fields: Any) -> Listing:
    config = {"name": "m", "base_path": "/m"} | fields
    return read_config_json(
        json.dumps({"model_config_list": [{"config": config}]}, indent=1), "/etc/config.json"
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("nireq", 4, {"parameters": (("depth", "4"),)}),
        ("nireq", 9, {"parameters": (("depth", "8"),)}),
        ("nireq", "auto", {"parameters": ()}),
        ("batch_size", 8, {"max_batch_rows": 8}),
        ("batch_size", "16", {"max_batch_rows": 16}),
        ("batch_size", "auto", {"max_batch_rows": None}),
        (
            "plugin_config",
            {"NUM_STREAMS": 2, "X": True},
            {"parameters": (("NUM_STREAMS", "2"), ("X", "YES"))},
        ),
        ("target_device", "CPU", {"parameters": ()}),
        ("target_device", "GPU", {"parameters": (("DEVICE", "GPU"),)}),
        ("model_version_policy", {"all": {}}, {"version_policy": VersionPolicy(latest=0)}),
        (
            "model_version_policy",
            {"latest": {"num_versions": 3}},
            {"version_policy": VersionPolicy(latest=3)},
        ),
        (
            "model_version_policy",
            {"specific": {"versions": [3, 1]}},
            {"version_policy": VersionPolicy(specific=(1, 3))},
        ),
        ("base_path", "rel", {"base_path": "/etc/rel"}),
        ("base_path", "gs://b/m", {"base_path": "gs://b/m"}),
        ("stateful", False, {}),
    ],
)
def test_fields_with_an_effect(field: str, value: Any, expected: dict[str, Any]) -> None:
    (model,) = openvino(**{field: value}).models
    assert {name: getattr(model, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("allow_cache", True), ("max_sequence_number", 5), ("layout", "NCHW"), ("layout", {"x": "NCHW:NCHW"})],
)
def test_fields_without_effect(field: str, value: Any) -> None:
    (model,) = openvino(**{field: value}).models
    assert [note for note in model.notes if note.startswith(f"{field}")]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("shape", "auto", 'shape: got "auto", which is not supported: models are not reshaped'),
        ("shape", {"x": "(1,3)"}, 'shape: got {"x": "(1,3)"}, which is not supported'),
        (
            "layout",
            "NHWC:NCHW",
            'layout: got "NHWC:NCHW", which is not supported: inputs are taken as they are',
        ),
        ("mean", "[1,2,3]", 'mean: got "[1,2,3]", which is not supported'),
        (
            "stateful",
            True,
            "stateful: got true, which is not supported: models with states are not supported",
        ),
        ("graph_path", "g.pbtxt", 'graph_path: got "g.pbtxt", which is not supported: MediaPipe'),
        ("batch_size", 0.5, "batch_size: got 0.5, want auto or 1 to"),
        ("batch_size", "1:8", 'batch_size: got "1:8", want auto'),
        ("nireq", -1, "nireq: got -1, want at least 1"),
        ("plugin_config", "x", 'plugin_config: got "x", want an object'),
        ("plugin_config", {"A": []}, "plugin_config.A: got [], want a text or a number"),
        ("target_device", 3, "target_device: got 3, want a text"),
        ("model_version_policy", {"specific": {"versions": [0]}}, "model_version_policy: got"),
        ("model_version_policy", {"latest": {"num_versions": True}}, "model_version_policy: got"),
        (
            "model_version_policy",
            {"all": {}, "latest": {"num_versions": 2}},
            'model_version_policy: got "all" and "latest", want one of them',
        ),
        ("model_version_policy", "all", 'model_version_policy: got "all", want {"all": {}}'),
        ("nirek", 1, "nirek: unknown field (did you mean nireq?)"),
    ],
)
def test_what_is_refused_for_its_model_alone(field: str, value: Any, message: str) -> None:
    found = openvino(**{field: value})
    assert found.models == ()
    (problem,) = found.problems
    assert str(problem).startswith(f"/etc/config.json:{8 if value == {'A': []} else 7}: {message}")
    assert problem.model == "m"


def test_pipelines_and_the_like_are_refused_one_by_one() -> None:
    document = {
        "model_config_list": [{"config": {"name": "m", "base_path": "/m"}}],
        "monitoring": {"metrics": {"enable": True}},
        "mediapipe_config_list": [{"name": "g"}],
        "pipeline_config_list": [{"name": "p"}, {}],
        "custom_node_library_config_list": [],
    }
    found = read_config_json(json.dumps(document, indent=1), "c.json")
    assert [model.name for model in found.models] == ["m"]
    assert [(p.model, p.line) for p in found.problems] == [
        ("g", 16),
        ("p", 21),
        ("pipeline_config_list[1]", 24),
    ]
    assert found.notes == ("monitoring is without effect: metrics are always on",)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "1: is not JSON"),
        ('{"a": 1,\n "a": 2, "model_config_list": []}', "2: 'a' is given twice"),
        ("[]", "1: got something else, want an object with model_config_list"),
        ('{"model_config_lst": []}', "1: unknown field 'model_config_lst' (did you mean model_config_list?)"),
        (
            '{"model_config_list": [{"config": {\n"name": 1, "base_path": "/"}}]}',
            "2: model_config_list[0].config.name: got 1",
        ),
        ('{"model_config_list": [\n{"config": []}]}', '2: model_config_list[0]: want {"config": {...}}'),
    ],
)
def test_what_breaks_the_whole_file(text: str, error: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_config_json(text, "c.json")
    assert f"c.json:{error}" in str(raised.value)


def test_lines_of_json() -> None:
    document = read_json('{"a": [1,\n {"b": "x\\n{", "c":\n {}}], "d"\n: null}')
    assert [
        document.line(path) for path in (("a",), ("a", 1), ("a", 1, "c"), ("d",), ("a", 1, "b", "z"))
    ] == [1, 2, 2, 3, 2]


@pytest.mark.parametrize(("depth", "fits"), [(63, True), (64, True), (65, False)])
def test_json_may_be_so_deep(depth: int, fits: bool) -> None:
    text = "[" * depth + "]" * depth
    if fits:
        read_json(text)
    else:
        with pytest.raises(JsonError, match="nested too deeply"):
            read_json(text)


# --- ours


def test_models_yaml() -> None:
    found = read_models_yaml(
        """defaults: {transition: resource, versions: all}
repositories: [/a, {path: "s3://b/c", versions: {latest: 2}, pinned: true}]
models:
  - name: d
    path: d
    version_labels: {stable: 3, canary: {3: 0.95, 4: 0.05}}
    pinned: true
    transition: availability
""",
        "/etc/models.yaml",
    )
    a, remote = found.repositories
    assert (a.base_path, a.resource_preserving, a.version_policy) == ("/a", True, VersionPolicy(latest=0))
    assert (remote.base_path, remote.pinned, remote.version_policy) == (
        "s3://b/c",
        True,
        VersionPolicy(latest=2),
    )
    (d,) = found.models
    assert d == ListedModel(
        "d",
        "/etc/d",
        version_policy=VersionPolicy(latest=0),
        labels=(("canary", ((3, 0.95), (4, 0.05))), ("stable", ((3, 1.0),))),
        pinned=True,
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("modles: []", "1: unknown key 'modles' (did you mean models?)"),
        (
            "models:\n- {name: a, path: b, version: 1}",
            "2: unknown key 'models[0].version' (did you mean versions?)",
        ),
        (
            "models:\n- {name: a, path: b, versions: {latest: 0}}",
            "2: models[0].versions.latest: got 0, want at least 1",
        ),
        (
            "models:\n- {name: a, path: b, versions: {latest: 1, specific: [1]}}",
            "2: models[0].versions: want one of",
        ),
        ("models:\n- {name: a, path: b, transition: fast}", "2: models[0].transition: got 'fast', want"),
        (
            "models:\n- {name: a, path: b}\n- {name: a, path: c}",
            "3: name: 'a' is given twice (first in line 2)",
        ),
        ("models:\n- {name: a}", "2: models[0].path is missing"),
        ("models: [", "1: is not YAML"),
        (
            "models:\n- {name: a, path: b, version_labels: {s: {1: 0}}}",
            '2: models[0].version_labels: labels["s"]: all weights',
        ),
    ],
)
def test_what_models_yaml_may_not_say(text: str, error: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_models_yaml(text, "m.yaml")
    assert str(raised.value).startswith(f"m.yaml:{error}")


# --- what is found


def found(*lists: ModelList, paths: tuple[Path, ...] = ()) -> Any:
    return Repositories(paths, lists=lists).scan()


def test_leading_zeros(tmp_path: Path) -> None:
    for name in ("1", "007", "0012", "12"):
        put(tmp_path / "m" / name / "saved_model.pb")
    put(
        tmp_path / "l",
        f'model_config_list {{ config {{ name: "x" base_path: "{tmp_path}/m" model_version_policy {{ all {{}} }} }} }}',
    )
    (model,) = found(ModelList("tensorflow", tmp_path / "l")).models
    assert {number: spec.path for number, spec in model.versions.items()} == {
        1: str(tmp_path / "m/1"),
        7: str(tmp_path / "m/007"),
        12: str(tmp_path / "m/12"),
    }
    assert model.notes == ("folder 0012 is ignored: it is the same version as 12",)
    (plain,) = found(paths=(tmp_path,)).models
    assert list(plain.versions) == [12]


def test_any_file_name(tmp_path: Path) -> None:
    put(tmp_path / "m/1/resnet.xml")
    put(tmp_path / "m/1/resnet.bin")
    put(tmp_path / "m/2/a.onnx")
    put(tmp_path / "m/2/b.onnx")
    config = {"name": "m", "base_path": str(tmp_path / "m"), "model_version_policy": {"all": {}}}
    put(tmp_path / "c.json", json.dumps({"model_config_list": [{"config": config}]}))
    (model,) = found(ModelList("openvino", tmp_path / "c.json")).models
    assert model.versions[1].path == str(tmp_path / "m/1/resnet.xml")
    assert [str(p) for p in model.problems] == [
        f"{tmp_path}/m/2: has several model files (a.onnx, b.onnx): set default_model_filename"
    ]


def test_one_file_is_version_1(tmp_path: Path) -> None:
    file = put(tmp_path / "net.xml")
    put(tmp_path / "net.bin")
    put(tmp_path / "config.pbtxt", "this is another model's")
    single = ModelList.single("m", str(file))
    (model,) = found(single).models
    assert [(n, s.path, s.backend) for n, s in model.versions.items()] == [(1, str(file), "openvino")]
    before = model.versions[1].fingerprint
    put(tmp_path / "net.bin", "other")
    assert found(single).models[0].versions[1].fingerprint != before
    put(tmp_path / "net.xml", "")
    assert [str(p) for p in found(single).problems] == [f"{file}: is empty"]


def test_a_list_wins_over_the_models_own_configuration(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        put(tmp_path / f"m/{number}/model.onnx")
    put(tmp_path / "m/config.pbtxt", "max_batch_size: 4")
    text = (
        "models: [{name: m, path: m, versions: {specific: [1, 2]}, version_labels: {stable: 1}, pinned: true, "
        "transition: resource}]"
    )
    put(tmp_path / "models.yaml", text)
    (model,) = found(ModelList("models", tmp_path / "models.yaml")).models
    assert sorted(model.versions) == [1, 2]
    assert model.versions[1].max_batch_rows == 4
    assert model.labels == (("stable", ((1, 1.0),)),)
    assert (model.pinned, model.resource_preserving) == (True, True)


def test_problems_of_listed_models_name_the_whole_path(tmp_path: Path) -> None:
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/config.pbtxt", "\nfoo: 1")
    put(tmp_path / "models.yaml", "models: [{name: m, path: m}, {name: gone, path: gone}]")
    assert [str(p) for p in found(ModelList("models", tmp_path / "models.yaml")).problems] == [
        "gone: cannot be read: No such file or directory",
        f"{tmp_path}/m/config.pbtxt:2: unknown field 'foo'",
    ]


def test_repositories_of_a_list(tmp_path: Path) -> None:
    put(tmp_path / "repo/m/1/model.onnx")
    put(tmp_path / "repo/m/2/model.onnx")
    put(tmp_path / "models.yaml", "repositories: [{path: repo, versions: all}]")
    listed = ModelList("models", tmp_path / "models.yaml")
    assert list(found(listed).wanted["m"]) == [1, 2]
    assert Repositories(lists=(listed,)).names() == ["m"]


def test_a_model_in_a_list_and_in_a_repository(tmp_path: Path) -> None:
    put(tmp_path / "repo/m/1/model.onnx")
    put(tmp_path / "models.yaml", "models: [{name: m, path: repo/m}]")
    scan = found(ModelList("models", tmp_path / "models.yaml"), paths=(tmp_path / "repo",))
    assert [str(p) for p in scan.problems] == [
        f"m: the model is in two repositories: {tmp_path}/repo and {tmp_path}/models.yaml"
    ]


def test_a_refused_model_does_not_touch_the_others(tmp_path: Path) -> None:
    put(tmp_path / "a/1/model.onnx")
    entries = [
        {"config": {"name": "a", "base_path": "a"}},
        {"config": {"name": "b", "base_path": "b", "shape": "auto"}},
    ]
    put(tmp_path / "c.json", json.dumps({"model_config_list": entries}))
    scan = found(ModelList("openvino", tmp_path / "c.json"))
    assert list(scan.wanted) == ["a"]
    assert [failure.model for failure in scan.failures] == ["b"]


def test_a_remote_path_needs_a_mirror(tmp_path: Path) -> None:
    put(tmp_path / "models.yaml", "models: [{name: m, path: 's3://b/m'}]")
    with pytest.raises(InvalidArgument, match="'s3://b/m': remote repositories are not switched on"):
        found(ModelList("models", tmp_path / "models.yaml"))


class FakeMirror:
    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.updates: list[Any] = []

    def local(self, url: str) -> Path:
        return self.cache

    def update(self, url: str, names: Any = None) -> None:
        self.updates.append((url, names))
        put(self.cache / "net/1/model.onnx")

    def names(self, url: str) -> list[str]:
        return ["net"]

    def problems(self, url: str) -> list[Any]:
        return []


def test_remote_paths_are_brought_up_to_date_first(tmp_path: Path) -> None:
    put(tmp_path / "models.yaml", "models: [{name: m, path: 's3://b/models/net'}]")
    mirror = FakeMirror(tmp_path / "cache")
    listed = ModelList("models", tmp_path / "models.yaml")
    repositories = Repositories(("https://h/models",), lists=(listed,), mirror=mirror)
    assert sorted(repositories.scan().wanted) == ["m", "net"]
    assert mirror.updates == [("https://h/models", None), ("s3://b/models", ["net"])]


# --- the flags


def test_lists_of_flags(tmp_path: Path) -> None:
    kinds = [
        entry.kind
        for entry in lists_of(models_file=tmp_path, model_config_file=tmp_path, ovms_config_file=tmp_path)
    ]
    assert kinds == ["models", "tensorflow", "openvino"]
    (single,) = lists_of(model_base_path="/m")
    assert single.listing().models[0].name == "default"
    with pytest.raises(InvalidArgument, match="--model-name needs --model-base-path"):
        lists_of(model_name="m")
    with pytest.raises(InvalidArgument, match="want one of them"):
        lists_of(model_base_path="/m", model_config_file=tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none.yaml: does not exist"):
        ModelList("models", tmp_path / "none.yaml").refresh()
    with pytest.raises(InvalidArgument, match="cannot be read: Is a directory"):
        ModelList("models", tmp_path).refresh()
    (tmp_path / "bad").write_bytes(b"a\n\xff")
    with pytest.raises(InvalidArgument, match="bad:2: is not UTF-8 text"):
        ModelList("models", tmp_path / "bad").refresh()


@pytest.mark.parametrize(("more", "fits"), [(-1, True), (0, True), (1, False)])
def test_a_list_may_be_so_large(
    more: int, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_list, "MAX_LIST_BYTES", 100)
    file = put(tmp_path / "m.yaml", "# ".ljust(100 + more, "x"))
    if fits:
        ModelList("models", file).refresh()
    else:
        with pytest.raises(InvalidArgument, match="has more than 100 bytes"):
            ModelList("models", file).refresh()
    assert listing.MAX_LIST_BYTES == 16 << 20
