"""Who sleeps and who is woken: the pure rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastserve.lifecycle.residency import Plan, Resident, Rules, first_asleep, plan
from fastserve.lifecycle.residency_loop import MOST_RETRY_AFTER_S, retry_after_s

NOW = 1000.0


def test_seconds_to_try_again_are_whole_and_bounded() -> None:
    most = MOST_RETRY_AFTER_S
    given = [0.0, 0.2, 1.0, 1.01, most - 0.5, most, most + 0.1, 1e18]
    assert [retry_after_s(s) for s in given] == [1, 1, 1, 2, most, most, most, most]


def model(name: str, size: int = 10, used: float = 0.0, awake: float = 0.0, **more: bool) -> Resident:
    return Resident(name, size, used, awake, **more)


def test_without_rules_nobody_sleeps_and_who_is_asked_for_wakes() -> None:
    assert plan([model("a")], {"b": 10}, Rules(), NOW) == Plan(wake=("b",))


def test_idle_ones_sleep_at_the_limit() -> None:
    rules = Rules(idle_s=60)
    here = [model("late", used=NOW - 59.9), model("idle", used=NOW - 60), model("pinned", pinned=True)]
    assert plan(here, {}, rules, NOW).sleep == ("idle",)
    assert plan([model("busy", busy=True)], {}, rules, NOW).sleep == ()


def test_the_least_recently_used_makes_room_and_the_newcomer_waits_until_it_is_gone() -> None:
    rules = Rules(budget_bytes=20)
    here = [model("a", used=5), model("b", used=3)]
    assert plan(here, {"c": 10}, rules, NOW) == Plan(sleep=("b",), waits=True)
    leaving = [model("a", used=5), model("b", used=3, leaving=True)]
    assert plan(leaving, {"c": 10}, rules, NOW) == Plan(waits=True)
    assert plan(here[:1], {"c": 10}, rules, NOW) == Plan(wake=("c",))


def test_the_budget_to_the_byte() -> None:
    rules = Rules(budget_bytes=20)
    assert plan([model("a")], {"b": 10}, rules, NOW).wake == ("b",)
    assert plan([model("a")], {"b": 11}, rules, NOW) == Plan(sleep=("a",), waits=True)
    assert plan([model("a", pinned=True)], {"b": 11}, rules, NOW).refused == {
        "b": "needs 11 bytes, memory budget 20, pinned models have 10"
    }


def test_who_was_woken_stays_a_while() -> None:
    rules = Rules(budget_bytes=10, stay_s=2)
    fresh = model("a", used=NOW - 1.9, awake=NOW - 1.9)
    assert plan([fresh], {"b": 10}, rules, NOW) == Plan(waits=True)
    assert plan([fresh], {"b": 10}, rules, NOW + 0.1).sleep == ("a",)


def test_nobody_overtakes_who_waits_for_room() -> None:
    rules = Rules(budget_bytes=20)
    decided = plan([model("a", busy=True)], {"large": 20, "small": 5}, rules, NOW)
    assert decided == Plan(waits=True)


def test_what_grew_beyond_the_budget_makes_room() -> None:
    assert plan([model("a", 15, 1), model("b", 10, 2)], {}, Rules(20), NOW).sleep == ("a",)


def test_at_the_start_the_first_stay() -> None:
    sizes = {"a": 10, "b": 10, "c": 10}
    assert first_asleep(sizes, frozenset(), 20) == {"c"}
    assert first_asleep(sizes, frozenset({"c"}), 20) == {"b"}
    assert first_asleep(sizes, frozenset(), 0) == set()


residents = st.lists(
    st.builds(
        Resident,
        st.integers(0, 10**6).map(str),
        st.integers(0, 50),
        st.floats(0, NOW),
        st.floats(0, NOW),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda r: r.model,
    max_size=8,
)


@given(residents, st.dictionaries(st.sampled_from("xyz"), st.integers(1, 60)), st.integers(1, 100))
def test_what_is_woken_fits_and_who_may_not_sleep_does_not(
    here: list[Resident], asked: dict[str, int], budget: int
) -> None:
    decided = plan(here, asked, Rules(budget), NOW)
    used = sum(r.size_bytes for r in here)
    woken = sum(asked[name] for name in decided.wake)
    assert not decided.wake or used + woken <= budget
    by_name = {r.model: r for r in here}
    for name in decided.sleep:
        assert not by_name[name].pinned
        assert not by_name[name].busy
        assert not by_name[name].leaving
    assert len(set(decided.sleep)) == len(decided.sleep)
    assert not set(decided.wake) & set(decided.refused)
