"""Who said what a label stands for: configuration, requests, and what is written in one line."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from fastserve.label_text import MAX_LABEL_VERSIONS, MAX_WEIGHT, is_label, read_labels_text, weights_of
from fastserve.lifecycle.version_labels import MAX_LABELS, VersionLabels


class Core:
    def __init__(self) -> None:
        self.given: dict[str, Mapping[str, Mapping[int, int]]] = {}
        self.calls = 0
        self.fails: Exception | None = None

    def set_labels(self, model: str, labels: Mapping[str, Mapping[int, int]]) -> None:
        if self.fails is not None:
            raise self.fails
        self.calls += 1
        self.given[model] = {name: dict(weights) for name, weights in labels.items()}

    def labels(self) -> list[Any]:
        return [
            SimpleNamespace(model=m, label=name, version=v, weight=w, ready=v == 3, requests=0)
            for m, labels in sorted(self.given.items())
            for name, weights in sorted(labels.items())
            for v, w in sorted(weights.items())
        ]


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def labels(core: Core) -> VersionLabels:
    return VersionLabels(core)


def test_the_configuration_is_replaced_and_pushed_only_when_it_changed(
    core: Core, labels: VersionLabels
) -> None:
    labels.configured("m", (("stable", ((3, 1),)), ("canary", ((3, 0.95), (4, 0.05)))))
    assert core.given["m"] == {"stable": {3: 1}, "canary": {3: 95, 4: 5}}
    labels.configured("m", (("stable", ((3, 1),)), ("canary", ((3, 95), (4, 5)))))
    assert core.calls == 1
    labels.configured("m", (("stable", ((4, 1),)),))
    assert core.given["m"] == {"stable": {4: 1}}
    labels.configured("m", ())
    assert core.given["m"] == {}


def test_what_is_assigned_wins_until_it_is_removed(core: Core, labels: VersionLabels) -> None:
    labels.configured("m", (("stable", ((3, 1),)),))
    labels.assign("m", "stable", {4: 1})
    labels.configured("m", (("stable", ((5, 1),)), ("other", ((1, 1),))))
    assert core.given["m"] == {"stable": {4: 1}, "other": {1: 1}}
    assert [(label.name, label.source) for label in labels.of("m")] == [
        ("other", "configured"),
        ("stable", "assigned"),
    ]
    labels.remove("m", "stable")
    assert core.given["m"]["stable"] == {5: 1}
    with pytest.raises(FailedPrecondition, match="the configuration says it"):
        labels.remove("m", "stable")
    with pytest.raises(NotFound, match="model 'm' has no label 'x'"):
        labels.remove("m", "x")
    assert labels.label("m", "other").versions[0].version == 1
    with pytest.raises(NotFound):
        labels.label("m", "x")


def test_several_move_at_once_or_none(core: Core, labels: VersionLabels) -> None:
    labels.change("m", {"stable": {3: 1}, "canary": {4: 1}})
    calls = core.calls
    labels.change(
        "m", {"stable": {4: 1}, "canary": None}, expected={"stable": {3: 7}, "canary": {4: 1}, "new": None}
    )
    assert core.given["m"] == {"stable": {4: 1}}
    assert core.calls == calls + 1
    for changes, expected, error in (
        ({"stable": {5: 1}}, {"stable": {3: 1}}, "label 'stable' of model 'm' is 4, not 3"),
        ({"stable": {5: 1}}, {"stable": None}, "is 4, not not there"),
        ({"stable": {5: 1}}, {"gone": {3: 1, 4: 9}}, "is not there, not 3:1,4:9"),
    ):
        with pytest.raises(FailedPrecondition, match=error):
            labels.change("m", changes, expected)
    for bad in ({"stable": {5: 1}, "gone": None}, {"stable": {5: 1}, "3": {1: 1}}):
        with pytest.raises((NotFound, InvalidArgument)):
            labels.change("m", bad)
    assert core.given["m"] == {"stable": {4: 1}}
    assert labels.assigned() == {"m": {"stable": {4: 1}}}


def test_a_refusal_of_the_engine_changes_nothing(core: Core, labels: VersionLabels) -> None:
    labels.assign("m", "a", {1: 1})
    core.fails = InvalidArgument("no")
    with pytest.raises(InvalidArgument):
        labels.assign("m", "a", {2: 1})
    labels.configured("m", (("b", ((1, 1),)),))
    core.fails = None
    assert labels.assigned() == {"m": {"a": {1: 1}}}
    labels.assign("m", "c", {1: 1})
    assert set(core.given["m"]) == {"a", "c"}


def test_what_was_assigned_is_kept_and_restored(core: Core) -> None:
    changes = []
    labels = VersionLabels(core, on_change=lambda: changes.append(labels.assigned()))
    labels.configured("m", (("stable", ((3, 1),)),))
    assert changes == []
    labels.assign("m", "canary", {3: 95, 4: 5})
    labels.assign("m", "canary", {3: 95, 4: 5})  # nothing new
    labels.assign("n", "default", {1: 1})
    assert changes[-1] == {"m": {"canary": {3: 95, 4: 5}}, "n": {"default": {1: 1}}}
    assert len(changes) == 2
    other = Core()
    restored = VersionLabels(other, on_change=lambda: changes.append({}))
    restored.restore(changes[-1])
    assert len(changes) == 2
    assert other.given == {"m": {"canary": {3: 95, 4: 5}}, "n": {"default": {1: 1}}}
    restored.clear("m")
    assert restored.assigned() == {"n": {"default": {1: 1}}}


def test_what_a_program_has_set_itself_counts_as_configured(core: Core) -> None:
    core.set_labels("m", {"stable": {3: 1}})
    labels = VersionLabels(core, shared=True)
    labels.assign("m", "canary", {4: 1})
    assert core.given["m"] == {"stable": {3: 1}, "canary": {4: 1}}
    core.set_labels("m", {"other": {3: 1}, "canary": {4: 1}})
    labels.remove("m", "canary")
    assert core.given["m"] == {"other": {3: 1}}


def test_a_wrong_label_of_the_configuration_is_logged_and_the_rest_holds(
    core: Core, labels: VersionLabels, caplog: pytest.LogCaptureFixture
) -> None:
    labels.configured("m", (("1", ((3, 1),)), ("stable", ((3, 1),))))
    assert core.given["m"] == {"stable": {3: 1}}
    assert 'labels["1"]: want a letter' in caplog.text


@pytest.mark.parametrize(
    ("count", "refused"), [(MAX_LABELS - 1, False), (MAX_LABELS, False), (MAX_LABELS + 1, True)]
)
def test_labels_of_a_model_are_limited(labels: VersionLabels, count: int, refused: bool) -> None:
    labels.configured("m", (("l0", ((1, 1),)),))
    changes = {f"l{index}": {1: 1} for index in range(count)}
    if refused:
        with pytest.raises(ResourceExhausted, match=f"a model may have {MAX_LABELS}"):
            labels.change("m", changes)
    else:
        labels.change("m", changes)
        assert len(labels.of("m")) == count


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({}, "names no version"),
        ({1: 0}, "all weights are 0"),
        ({1: -1}, "want 0 to 1000000"),
        ({1: float("nan")}, "want 0 to 1000000"),
        ({1: float("inf")}, "want 0 to 1000000"),
        ({1: True}, "want 0 to 1000000"),
        ({1: MAX_WEIGHT + 1}, "got weight 1000001"),
        ({1: 0.5, 2: 600_000}, "as a whole number"),
        ({1: 1e-13, 2: 1}, "fewer digits"),
        ({-1: 1}, "got version -1"),
        (dict.fromkeys(range(MAX_LABEL_VERSIONS + 1), 1), "want 16 or fewer"),
    ],
)
def test_bad_weights_are_named(versions: dict[int, float], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        weights_of("a", versions)


def test_weights_at_their_limits() -> None:
    assert weights_of("a", {1: MAX_WEIGHT, 2: MAX_WEIGHT - 1}) == {1: MAX_WEIGHT, 2: MAX_WEIGHT - 1}
    assert weights_of("a", dict.fromkeys(range(MAX_LABEL_VERSIONS), 1)) == dict.fromkeys(
        range(MAX_LABEL_VERSIONS), 1
    )
    assert weights_of("a", {2: 0.5, 1: 100}) == {1: 1000, 2: 5}
    assert weights_of("a", {1: 1e2}) == {1: 100}


@given(
    st.dictionaries(
        st.integers(0, 1 << 40), st.integers(0, MAX_WEIGHT), min_size=1, max_size=MAX_LABEL_VERSIONS
    )
)
def test_one_line_says_it_all(weights: dict[int, int]) -> None:
    text = "canary=" + ",".join(f"{version}:{weight}" for version, weight in weights.items())
    if any(weights.values()):
        assert read_labels_text(text + "  stable=3")["canary"] == weights
    else:
        with pytest.raises(ValueError, match="all weights are 0"):
            read_labels_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "stable",
        "stable=",
        "stable=x",
        "stable=1:x",
        "stable=1,1",
        "a=1 a=2",
        "1=1",
        "a=1:2:3",
        "a=-1",
        "=1",
        "a=1:nan",
    ],
)
def test_bad_lines_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_labels_text(text)


def test_names() -> None:
    assert is_label("a" * 64)
    assert not is_label("a" * 65)
    assert not any(map(is_label, ("", "3", "3a", "ä", "a b", "a\n")))
