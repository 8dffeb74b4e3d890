"""Which changes count, look by look; virtual time."""

from __future__ import annotations

import pytest

from fastserve.lifecycle.poll_rules import BESIDE, LISTED, Look, Part, PartKey, PollRules, Step
from fastserve.lifecycle.version_files import FileState

SETTLE_S = 15.0


def key(part: str, path: str = "/r/m") -> PartKey:
    return PartKey(path, part)


def part(size: int = 1, finished: str = "does not say", changed_ns: int = 0) -> Part:
    return Part((FileState("model.onnx", size, 0, changed_ns),), finished, "why")  # type: ignore[arg-type]


class Polls:
    """One model `m`, whose parts a test sets: part -> Part; a look every 15 s."""

    def __init__(self, **first: Part) -> None:
        self.rules = PollRules()
        self.now = 0.0
        self.parts = {BESIDE: part()} | {name.removeprefix("v"): p for name, p in first.items()}
        self.rules.step(self.look(), 0.0, SETTLE_S, wall_ns=1 << 62)

    def look(self, **options: object) -> Look:
        models = {"m": {key(name): p for name, p in self.parts.items()}} if self.parts else {}
        return Look(models, **options)  # type: ignore[arg-type]

    def poll(self, after_s: float = SETTLE_S, **options: object) -> Step:
        self.now += after_s
        return self.rules.step(self.look(**options), self.now, SETTLE_S)


def test_nothing_changes() -> None:
    polls = Polls(v1=part())
    assert polls.poll() == Step()


def test_a_new_version_counts_when_it_looked_the_same_for_a_whole_interval() -> None:
    polls = Polls(v1=part())
    polls.parts["2"] = part(1)
    assert polls.poll().changing == {("m", "2"): "has changed just now"}
    polls.parts["2"] = part(2)  # it grew
    assert not polls.poll().read
    assert not polls.poll(14.9).read
    assert polls.poll(0.1) == Step(read={"m": {}})
    assert polls.poll() == Step()


def test_a_manifest_that_cannot_be_read_may_be_half_of_one_until_it_stays_so() -> None:
    polls = Polls(v1=part())
    polls.parts["2"] = part(1, "broken")
    assert polls.poll().changing == {("m", "2"): "has changed just now"}
    polls.parts["2"] = part(2, "broken")
    assert not polls.poll().read
    assert polls.poll() == Step(read={"m": {}})  # it is wrong, and whoever reads it says so
    polls.parts["2"] = part(3, "says so")
    polls.poll()
    assert polls.poll() == Step(read={"m": {}})


def test_a_version_that_never_stops_growing_holds_up_no_other() -> None:
    polls = Polls(v1=part())
    for size in range(1, 10):
        polls.parts["2"] = part(size)
        assert not polls.poll().read
    polls.parts["3"] = part()
    polls.parts["2"] = part(98)
    polls.poll()
    polls.parts["2"] = part(99)
    assert polls.poll().read == {"m": {2: False}}  # read, without version 2


def test_content_that_changes_in_place_is_held_as_it_was() -> None:
    polls = Polls(v1=part(1), v2=part(1))
    polls.parts["1"] = part(2)
    polls.parts["2"] = part(5)
    polls.poll()
    polls.parts["1"] = part(3)
    assert polls.poll().read == {"m": {1: True}}
    polls.poll()
    assert polls.poll() == Step()  # version 1 counted at the look before


@pytest.mark.parametrize(("finished", "at_once"), [("says so", True), ("does not say", False), ("no", False)])
def test_a_new_version_that_says_that_it_is_finished_counts_at_once(finished: str, at_once: bool) -> None:
    polls = Polls(v1=part())
    polls.parts["2"] = part(1, finished)
    assert bool(polls.poll().read) is at_once


def test_one_that_says_that_it_is_not_finished_never_counts() -> None:
    polls = Polls(v1=part())
    polls.parts["2"] = part(1, "no")
    for _ in range(5):
        step = polls.poll()
        assert not step.read
        assert step.changing == {("m", "2"): "why"}
    polls.parts["2"] = part(1, "says so")
    assert polls.poll().read == {"m": {}}


def test_a_changed_version_has_to_settle_whatever_its_manifest_says() -> None:
    polls = Polls(v1=part(1, "says so"))
    polls.parts["1"] = part(2, "says so")
    assert not polls.poll().read
    assert polls.poll().read == {"m": {}}


def test_while_the_configuration_changes_the_model_waits() -> None:
    polls = Polls(v1=part())
    polls.parts["2"] = part(1)
    polls.poll()
    polls.parts[BESIDE] = part(2)
    assert not polls.poll().read  # version 2 has settled, config.pbtxt has not
    assert polls.poll().read == {"m": {}}


def test_a_version_is_gone_when_it_was_missing_for_a_whole_interval() -> None:
    polls = Polls(v1=part(), v2=part())
    old = polls.parts.pop("1")
    polls.poll()
    polls.parts["1"] = old  # somebody replaced it
    assert polls.poll() == Step()
    del polls.parts["1"]
    assert polls.poll().changing == {("m", "1"): "is not there any more"}
    assert polls.poll().read == {"m": {}}


def test_a_model_is_gone_when_it_was_missing_for_a_whole_interval() -> None:
    polls = Polls(v1=part())
    polls.parts.clear()
    assert not polls.poll().gone
    assert polls.poll() == Step(gone=frozenset({"m"}))
    assert polls.poll() == Step()


def test_a_model_without_versions_is_not_gone() -> None:
    polls = Polls(v1=part())
    del polls.parts["1"]
    polls.poll()
    assert polls.poll() == Step(read={"m": {}})


@pytest.mark.parametrize("options", [{"unknown": frozenset({"m"})}, {"complete": False}])
def test_what_cannot_be_looked_at_is_as_it_was(options: dict[str, object]) -> None:
    polls = Polls(v1=part())
    before = dict(polls.parts)
    polls.parts.clear()
    for _ in range(5):
        assert polls.poll(**options) == Step()
    polls.parts = before
    assert polls.poll() == Step()  # back, and nothing to do


def test_a_model_that_leaves_its_list_is_gone_at_once() -> None:
    rules = PollRules()
    parts = {key(LISTED): part(), key(BESIDE): part(), key("1"): part()}
    rules.step(Look({"m": parts}), 0, SETTLE_S, wall_ns=1 << 62)
    assert rules.step(Look({}), 15, SETTLE_S) == Step(gone=frozenset({"m"}))


def test_a_list_that_says_something_else_counts_at_once() -> None:
    rules = PollRules()
    parts = {key(LISTED): part(1), key(BESIDE): part(), key("1"): part()}
    rules.step(Look({"m": parts}), 0, SETTLE_S, wall_ns=1 << 62)
    parts = parts | {key(LISTED): part(2)}
    assert rules.step(Look({"m": parts}), 15, SETTLE_S) == Step(read={"m": {}})


@pytest.mark.parametrize(("age_s", "counts"), [(1.9, False), (2.0, True)])
def test_at_start_the_age_of_the_files_counts(age_s: float, counts: bool) -> None:
    rules = PollRules()
    wall_ns = 1_000_000_000_000
    parts = {key("1"): part(1, changed_ns=wall_ns - round(age_s * 1e9)), key(BESIDE): part()}
    step = rules.step(Look({"m": parts}), 0, 2.0, wall_ns)
    assert step.read == {"m": {} if counts else {1: False}}
    later = rules.step(Look({"m": parts}), 2.0, 2.0)
    assert later.read == ({} if counts else {"m": {}})


def test_a_model_in_two_places_is_read_when_either_changes() -> None:
    rules = PollRules()
    parts = {key("1", "/a/m"): part(), key("1", "/b/m"): part()}
    rules.step(Look({"m": parts}), 0, SETTLE_S, wall_ns=1 << 62)
    del parts[key("1", "/b/m")]
    rules.step(Look({"m": parts}), 15, SETTLE_S)
    assert rules.step(Look({"m": parts}), 30, SETTLE_S).read == {"m": {}}
