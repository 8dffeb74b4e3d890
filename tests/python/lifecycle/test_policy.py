"""plan() as a table of cases, and as a property: in any order it converges, and no model is left without a version."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.lifecycle.policy import Action, Actual, Key, Room, Wish, plan
from fastserve.lifecycle.transitions import State
from fastserve.lifecycle.version_spec import VersionSpec


def spec(version: int, variant: str = "", model: str = "m") -> VersionSpec:
    return VersionSpec(model, version, "identity", parameters=(("variant", variant),))


def ready(version: int, variant: str = "") -> Actual:
    return Actual("READY", spec(version, variant))


def load(version: int) -> Action:
    return Action("load", "m", version)


def unload(version: int) -> Action:
    return Action("unload", "m", version)


def planned(
    wanted: dict[int, VersionSpec],
    actual: dict[int, Actual],
    *,
    resources: bool = False,
    asleep: bool = False,
    now: float = 0.0,
) -> list[Action]:
    wishes = {"m": Wish(wanted, resource_preserving=resources, asleep=asleep)} if wanted else {}
    return plan(wishes, {("m", version): entry for version, entry in actual.items()}, now)


def test_the_newest_version_is_loaded_first() -> None:
    assert planned({1: spec(1), 3: spec(3), 2: spec(2)}, {}) == [load(3), load(2), load(1)]


def test_the_old_version_stays_until_the_new_one_is_ready() -> None:
    assert planned({2: spec(2)}, {1: ready(1)}) == [load(2)]
    assert planned({2: spec(2)}, {1: ready(1), 2: Actual("LOADING", spec(2))}) == []
    assert planned({2: spec(2)}, {1: ready(1), 2: Actual("WARMING", spec(2))}) == []
    assert planned({2: spec(2)}, {1: ready(1), 2: ready(2)}) == [unload(1)]


def test_a_new_version_that_failed_leaves_the_newest_old_one() -> None:
    failed = Actual("FAILED", spec(3))
    assert planned({3: spec(3)}, {1: ready(1), 2: ready(2), 3: failed}) == [unload(1)]
    assert planned({3: spec(3)}, {2: ready(2), 3: failed}) == []


def test_a_failed_version_is_tried_again_when_its_spec_changes() -> None:
    failed = Actual("FAILED", spec(1, "a"))
    assert planned({1: spec(1, "a")}, {1: failed}) == []
    assert planned({1: spec(1, "b")}, {1: failed}) == [load(1)]


def test_a_ready_version_with_another_spec_is_loaded_over() -> None:
    assert planned({1: spec(1, "b")}, {1: ready(1, "a")}) == [load(1)]
    assert planned({1: spec(1)}, {1: Actual("READY", None)}) == [load(1)]
    assert planned({1: spec(1)}, {1: ready(1)}) == []


def test_nothing_wanted_unloads_everything() -> None:
    assert planned({}, {1: ready(1), 2: ready(2), 3: Actual("FAILED", spec(3))}) == [
        unload(3),
        unload(1),
        unload(2),
    ]
    assert planned({}, {1: Actual("LOADING", spec(1)), 2: Actual("DRAINING", spec(2))}) == []


def test_a_version_that_was_unloaded_is_loaded_again() -> None:
    assert planned({1: spec(1)}, {1: Actual("UNLOADED", spec(1))}) == [load(1)]
    assert planned({1: spec(1)}, {1: Actual("DRAINING", spec(1))}) == []


def test_a_failed_version_is_tried_again_when_its_time_has_come() -> None:
    failed = Actual("FAILED", spec(1), retry_at=5.0)
    assert planned({1: spec(1)}, {1: failed}, now=4.9) == []
    assert planned({1: spec(1)}, {1: failed}, now=5.0) == [load(1)]
    serves_on = Actual("READY", spec(1), retry_at=5.0)
    assert planned({1: spec(1)}, {1: serves_on}, now=4.9) == []
    assert planned({1: spec(1)}, {1: serves_on}, now=5.0) == [load(1)]
    assert planned({1: spec(1, "b")}, {1: failed}, now=4.9) == [load(1)]  # another spec does not wait


@pytest.mark.parametrize("state", ["READY", "FAILED"])
def test_resources_first_unloads_before_it_loads(state: State) -> None:
    old = Actual(state, spec(1))
    load_beside = [] if state == "READY" else [load(2)]  # what failed holds nothing
    assert planned({2: spec(2)}, {1: old}, resources=True) == [unload(1), *load_beside]
    assert planned({2: spec(2)}, {1: Actual("DRAINING", spec(1))}, resources=True) == []
    assert planned({2: spec(2)}, {1: Actual("LOADING")}, resources=True) == []
    assert planned({2: spec(2)}, {1: Actual("UNLOADED")}, resources=True) == [load(2)]
    assert planned({2: spec(2)}, {1: Actual("DRAINING", stuck=True)}, resources=True) == [load(2)]
    assert planned({2: spec(2), 3: spec(3)}, {}, resources=True) == [load(3), load(2)]


def test_resources_first_unloads_what_it_replaces() -> None:
    assert planned({1: spec(1, "b")}, {1: ready(1, "a")}, resources=True) == [unload(1)]
    assert planned({1: spec(1, "b")}, {1: Actual("DRAINING", spec(1, "a"))}, resources=True) == []
    assert planned({1: spec(1), 2: spec(2)}, {1: ready(1)}, resources=True) == [load(2)]
    assert planned({1: spec(1, "b"), 2: spec(2)}, {1: ready(1, "a")}, resources=True) == [unload(1)]


@pytest.mark.parametrize("resources", [False, True])
def test_a_model_that_sleeps_is_unloaded_and_not_loaded(resources: bool) -> None:
    wanted = {1: spec(1), 2: spec(2)}
    actual = {1: ready(1), 2: Actual("FAILED", spec(2, "old")), 3: Actual("FAILED", spec(3)), 4: ready(4)}
    asleep = planned(wanted, actual, resources=resources, asleep=True)
    assert asleep == [unload(1), unload(3), unload(4)]
    assert planned(wanted, {}, resources=resources, asleep=True) == []
    assert planned(wanted, {1: Actual("LOADING")}, resources=resources, asleep=True) == []


def test_who_loads_first() -> None:
    def model(name: str, priority: int, *versions: int) -> dict[str, Wish]:
        return {name: Wish({v: spec(v, model=name) for v in versions}, priority=priority)}

    wishes = {**model("b", 0, 1, 2), **model("a", 0, 1, 2), **model("late", -1, 1), **model("vip", 5, 7)}
    actual: dict[Key, Actual] = {("a", 9): Actual("READY", spec(9, model="a"))}
    order = [(a.model, a.version) for a in plan(wishes, actual)]
    # By priority; then who does not serve at all; then every newest before anybody's second.
    assert order == [("vip", 7), ("b", 2), ("b", 1), ("a", 2), ("a", 1), ("late", 1)]
    for loads in range(7):
        assert [(a.model, a.version) for a in plan(wishes, actual, room=Room(loads, 0))] == order[:loads]
    assert plan(wishes, actual, room=Room(-1, -1)) == []


def test_unloads_have_room_of_their_own() -> None:
    actual: dict[Key, Actual] = {("m", v): ready(v) for v in range(1, 6)}
    wishes = {"n": Wish({1: spec(1, model="n")})}
    for unloads in range(6):
        got = plan(wishes, actual, room=Room(1, unloads))
        assert got == [*(unload(v) for v in range(1, unloads + 1)), Action("load", "n", 1)]


def test_models_do_not_touch_each_other() -> None:
    wishes = {"a": Wish({1: spec(1, model="a")}), "b": Wish({2: spec(2, model="b")})}
    actual: dict[Key, Actual] = {("b", 1): Actual("READY", spec(1, model="b"))}
    assert plan(wishes, actual) == [Action("load", "a", 1), Action("load", "b", 2)]


def as_wishes(wanted: Mapping[str, Mapping[int, VersionSpec]]) -> dict[str, Wish]:
    return {model: Wish(versions) for model, versions in wanted.items()}


class World:
    """An engine as the policy sees it, with loads and unloads that end when the test says so."""

    def __init__(self, failing: frozenset[tuple[int, str]]) -> None:
        self.failing = failing
        self.served: dict[Key, VersionSpec] = {}
        self.tried: dict[Key, VersionSpec] = {}
        self.failed: set[Key] = set()
        self.in_flight: dict[Key, VersionSpec | None] = {}
        self.loads = 0

    def actual(self) -> dict[Key, Actual]:
        actual = {key: Actual("FAILED", self.tried[key]) for key in self.failed}
        actual |= {key: Actual("READY", self.tried[key]) for key in self.served}
        return actual | {key: Actual("LOADING" if s else "DRAINING") for key, s in self.in_flight.items()}

    def start(self, wanted: dict[str, dict[int, VersionSpec]]) -> None:
        for action in plan(as_wishes(wanted), self.actual()):
            key = (action.model, action.version)
            assert key not in self.in_flight
            self.in_flight[key] = wanted[action.model][action.version] if action.kind == "load" else None
            if action.kind == "unload":
                self.served.pop(key, None)  # refuses new requests at once

    def finish(self, key: Key) -> None:
        wish = self.in_flight.pop(key)
        if wish is None:
            self.failed.discard(key)
            self.tried.pop(key, None)
            return
        self.loads += 1
        self.tried[key] = wish
        if (wish.version, dict(wish.parameters)["variant"]) in self.failing:
            if key not in self.served:
                self.failed.add(key)
            return
        self.failed.discard(key)
        self.served[key] = wish

    def has_ready(self, model: str) -> bool:
        return any(key[0] == model for key in self.served)


VERSIONS = st.integers(1, 4)
VARIANTS = st.sampled_from("ab")
WANTED = st.dictionaries(
    st.sampled_from(["m", "n"]), st.dictionaries(VERSIONS, VARIANTS, min_size=1, max_size=3), max_size=2
)


@settings(max_examples=300, deadline=None)
@given(
    wishes=st.lists(WANTED, min_size=1, max_size=4),
    failing=st.frozensets(st.tuples(VERSIONS, VARIANTS), max_size=4),
    data=st.data(),
)
def test_converges_and_keeps_every_model_served(
    wishes: list[dict[str, dict[int, str]]], failing: frozenset[tuple[int, str]], data: st.DataObject
) -> None:
    world = World(failing)
    for wish in wishes:
        wanted = {
            m: {v: spec(v, variant, m) for v, variant in versions.items()} for m, versions in wish.items()
        }
        served_before = {model for model in wanted if world.has_ready(model)}
        loads_before = world.loads
        world.start(wanted)
        settle = data.draw(st.booleans()) or wish is wishes[-1]
        steps = 0
        while world.in_flight and (settle or data.draw(st.booleans())):
            world.finish(data.draw(st.sampled_from(sorted(world.in_flight))))
            world.start(wanted)
            assert all(world.has_ready(model) for model in served_before), (
                "a model that was served is not any more"
            )
            steps += 1
            assert steps < 100
        if not settle:
            continue
        assert plan(as_wishes(wanted), world.actual()) == []
        for model, versions in wanted.items():
            for version, want in versions.items():
                assert world.tried[model, version] == want
                assert (world.served.get((model, version)) == want) != (
                    (version, wish[model][version]) in failing
                )
            others = [v for name, v in world.served if name == model and v not in versions]
            if any((model, version) in world.served for version in versions):
                assert others == []
            else:
                assert len(others) <= 1
        assert {model for model, _ in world.served} <= set(wanted)
        # Nothing is tried twice: at most one load a wanted version, and those that were in flight from before.
        assert world.loads - loads_before <= 2 * sum(len(versions) for versions in wanted.values()) + 8
