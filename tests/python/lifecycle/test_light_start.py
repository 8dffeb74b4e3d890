"""Who is loaded quickly at a start with many models, and who is loaded again when it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastserve.lifecycle.light_start import QUICK, RENEWED, LightStart, whole
from fastserve.lifecycle.version_spec import VersionSpec
from fastserve.scheduling import Scheduling


def spec(model: str, version: int = 1, backend: str = "openvino", **fields: object) -> VersionSpec:
    return VersionSpec(model, version, backend, **fields)  # type: ignore[arg-type]


def is_light(found: VersionSpec) -> bool:
    return set(QUICK) <= set(found.parameters)


@pytest.mark.parametrize(("count", "light"), [(3, False), (4, False), (5, True)])
def test_only_where_there_are_many(count: int, light: bool) -> None:
    start = LightStart(lambda *_: False, many=4)
    models = [(f"m{i}", {1: spec(f"m{i}")}) for i in range(count)]
    start.begin(models)
    assert len(start) == (count if light else 0)
    assert is_light(start.applied("m0", models[0][1])[1]) == light


def test_what_says_how_it_is_prepared_is_left_alone() -> None:
    start = LightStart(lambda *_: False, many=0)
    versions = {
        1: spec("m", 1),
        2: spec("m", 2, backend="identity"),
        3: spec("m", 3, parameters=(("prepared", "static"),)),
        4: spec("m", 4, parameters=(("tune", "on"),)),
        5: spec("m", 5, max_batch_rows=0),
        6: spec("m", 6, scheduling=Scheduling(allowed_batch_sizes=(1, 8))),
        7: spec("m", 7, parameters=(("INFERENCE_PRECISION_HINT", "f32"),)),
    }
    start.begin([("m", versions)])
    found = start.applied("m", versions)
    assert {number for number, each in found.items() if is_light(each)} == {1, 7}
    assert whole(found) == versions


def test_a_model_that_was_asked_is_whole_and_stays_so() -> None:
    asked: set[str] = set()
    start = LightStart(lambda model, version: model in asked, many=0)
    models = {f"m{i}": {1: spec(f"m{i}")} for i in range(5)}
    start.begin(models.items())
    assert start.take_asked() == []
    asked |= {"m1", "m2", "m3"}
    first = start.take_asked()
    assert len(first) == RENEWED
    assert sorted(first + start.take_asked()) == ["m1", "m2", "m3"]
    assert start.take_asked() == []
    assert len(start) == 2
    assert start.applied("m1", models["m1"]) == models["m1"]
    # Found again, with another file: as before.
    changed = {1: replace(models["m0"][1], fingerprint="new"), 2: spec("m0", 2)}
    found = start.applied("m0", changed)
    assert is_light(found[1])
    assert not is_light(found[2])
