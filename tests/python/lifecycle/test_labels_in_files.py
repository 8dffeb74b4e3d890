"""Labels of versions in model.yaml and config.pbtxt, and that a label which moves loads nothing again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve.lifecycle.model_config import read_config
from fastserve.lifecycle.model_yaml import read_model_yaml
from fastserve.lifecycle.repository import scan_repositories
from fastserve.lifecycle.version_labels import MAX_LABELS

PBTXT = 'backend: "identity"\nparameters {{ key: "version_labels" value {{ string_value: "{}" }} }}\n'


def test_both_files_say_the_same() -> None:
    from_yaml, problems = read_model_yaml(
        "m", "backend: identity\nversion_labels: {stable: 3, canary: {3: 95, 4: 5}}\n"
    )
    assert problems == []
    from_pbtxt, problems = read_config("m", PBTXT.format("stable=3 canary=3:95,4:5"))
    assert problems == []
    assert from_yaml is not None
    assert from_pbtxt is not None
    assert (
        from_yaml.version_labels
        == from_pbtxt.version_labels
        == (("canary", ((3, 95), (4, 5))), ("stable", ((3, 1),)))
    )
    assert from_pbtxt.parameters == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("version_labels: {3: 3}", "version_labels[3]"),
        ("version_labels: {a: {3: -1}}", "version_labels.a[3]: got -1"),
        ("version_labels: {a: {3: 0}}", 'version_labels["a"]: all weights are 0'),
        ("version_labels: {a: b}", "version_labels.a"),
        ("parameters: {version_labels: 'a=1'}", "parameters.version_labels: is a knob of its own here"),
        ("version_labels: {" + ", ".join(f"l{i}: 1" for i in range(MAX_LABELS + 1)) + "}", "version_labels"),
    ],
)
def test_what_is_wrong_in_model_yaml_is_named_with_its_line(line: str, words: str) -> None:
    settings, problems = read_model_yaml("m", f"backend: identity\n{line}\n")
    assert settings is None
    assert words in problems[0].message
    assert problems[0].line == 2


@pytest.mark.parametrize("count", [MAX_LABELS - 1, MAX_LABELS, MAX_LABELS + 1])
def test_what_is_wrong_in_config_pbtxt_too(count: int) -> None:
    settings, problems = read_config("m", PBTXT.format(" ".join(f"l{i}=1" for i in range(count))))
    assert (settings is None) == (count > MAX_LABELS) == bool(problems)
    settings, problems = read_config("m", PBTXT.format("stable:3"))
    assert settings is None
    assert "want LABEL=VERSION" in problems[0].message
    assert problems[0].line == 2


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (
            "model.yaml",
            "backend: identity\nversion_labels: {a: 1}\n",
            "backend: identity\nversion_labels: {a: 2}\n",
        ),
        ("config.pbtxt", PBTXT.format("a=1"), PBTXT.format("a=2")),
    ],
)
def test_a_label_is_not_a_part_of_what_is_loaded(tmp_path: Path, file: str, before: str, after: str) -> None:
    tensors = {
        "model.yaml": "inputs: [{name: x, datatype: FP32, dims: [2]}]\noutputs: [{name: y, datatype: FP32, dims: [2]}]\n",
        "config.pbtxt": 'input { name: "x" data_type: TYPE_FP32 dims: 2 } output { name: "y" data_type: TYPE_FP32 dims: 2 }',
    }[file]
    (tmp_path / "m" / "1").mkdir(parents=True)
    found = []
    for text in (before, after):
        (tmp_path / "m" / file).write_text(text + tensors)
        (model,) = scan_repositories([tmp_path]).models
        assert model.problems == ()
        found.append(model)
    assert found[0].versions == found[1].versions
    assert [model.labels for model in found] == [(("a", ((1, 1),)),), (("a", ((2, 1),)),)]
