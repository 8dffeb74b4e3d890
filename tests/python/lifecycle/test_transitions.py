"""The table of states, pair by pair: it is the engine's, and Life follows it."""

from __future__ import annotations

import itertools
import logging

import pytest

from fastserve import _core
from fastserve.lifecycle.transitions import STATES, TRANSITIONS, Life, State

PAIRS = list(itertools.product(STATES, STATES))
THE_WAY = ["NEW", "LOADING", "WARMING", "READY", "DRAINING", "UNLOADED"]


def written_out() -> set[tuple[str, str]]:
    """NEW > LOADING > WARMING > READY > DRAINING > UNLOADED, any > FAILED; UNLOADED and FAILED are ends."""
    return set(itertools.pairwise(THE_WAY)) | {(state, "FAILED") for state in THE_WAY[:-1]}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_engine_has_the_same_table(one: State, other: State) -> None:
    assert (other in TRANSITIONS[one]) == ((one, other) in _core.version_transitions())


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_life_takes_the_steps_of_the_table_and_no_other(
    one: State, other: State, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life("digits version 2", one)
    with caplog.at_level(logging.ERROR):
        taken = life.to(other)
    assert taken == ((one, other) in written_out())
    assert life.state == (other if taken else one)
    said = [] if taken else [f"digits version 2: {one} > {other} is no transition; it stays {one}"]
    assert caplog.messages == said


def test_the_engine_knows_no_other_states() -> None:
    assert {state for step in _core.version_transitions() for state in step} == set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_anything_that_has_not_ended_may_fail(state: State, caplog: pytest.LogCaptureFixture) -> None:
    life = Life("m version 1", state)
    life.failed()
    assert life.state == ("UNLOADED" if state == "UNLOADED" else "FAILED")
    assert caplog.messages == []


def test_several_steps_end_at_the_first_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    life = Life("m version 1")
    assert not life.to("LOADING", "READY", "DRAINING")
    assert life.state == "LOADING"
    assert caplog.messages == ["m version 1: LOADING > READY is no transition; it stays LOADING"]
