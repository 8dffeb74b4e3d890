"""Loads that fail, take too long, or hang for good: what is tried again and when, what users and the log are told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fake_core import FakeCore
from tests.support.virtual_time import Call, VirtualLoop

from fastserve import errors
from fastserve.lifecycle import ModelState, Reconciler, VersionSpec, policy, reconciler
from fastserve.lifecycle.loading import MOST_HUNG
from fastserve.lifecycle.policy import Manner
from fastserve.lifecycle.reconciler import STILL_RUNS
from fastserve.lifecycle.retry import RetryRule

HOUR_S = 3600.0


def spec(version: int, variant: str = "", model: str = "m") -> VersionSpec:
    return VersionSpec(model, version, "identity", parameters=(("variant", variant),))


class World:
    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.begun: list[tuple[str, float]] = []
        self.core = FakeCore(lambda call: self.begun.append((call.name, self.loop.time())))
        self.reconciler = self.make()

    def make(self, **options: Any) -> Reconciler:
        options = {"loader_threads": 1, "retry": RetryRule(jitter=0.0)} | options
        made = self.loop.call(lambda: Reconciler(self.core, threads=self.core.threads, **options))
        assert isinstance(made, Reconciler)
        self.reconciler = made
        return made

    def want(self, *specs: VersionSpec, model: str = "m", **how: Any) -> None:
        self.loop.call(lambda: self.reconciler.set_model(model, {s.version: s for s in specs}, **how))

    def finish(self, outcome: Exception | None = None, call: Call | None = None) -> None:
        self.core.finish(call or self.core.threads.running[0], outcome)
        self.loop.settle()

    def states(self, model: str = "m") -> list[tuple[int | None, str, str, float | None]]:
        states = self.loop.call(self.reconciler.model_states)
        return [(s.version, s.state, s.reason, s.retry_in_s) for s in states if s.model == model]

    def times(self, name: str = "load-m-1") -> list[float]:
        return [at for begun, at in self.begun if begun == name]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.loop.end()


# --- tried again


def test_a_passing_error_is_tried_again_each_time_later(world: World) -> None:
    world.want(spec(1))
    for _ in range(20):
        if world.core.loads():
            world.finish(errors.Unavailable("no device"))
        world.loop.advance(100.0)
    world.loop.advance(24 * HOUR_S)
    assert len(world.times()) == 6, "5 tries beside the first, whatever happens"
    assert world.reconciler.counts.retries == {("m", "1"): 5}
    assert world.reconciler.counts.failures == {("m", "1", "unavailable"): 6}
    assert world.states() == [(1, "FAILED", "no device", None)]


def test_the_pauses_are_those_of_the_rule(world: World) -> None:
    world.want(spec(1))
    for _ in range(6):
        world.finish(errors.Unavailable("no device"))
        if (retry_in_s := world.states()[0][3]) is not None:
            world.loop.advance(retry_in_s - 0.001)
            assert not world.core.loads()
            world.loop.advance(0.001)
    assert world.times() == pytest.approx([0, 1, 5, 21, 85, 341])


@pytest.mark.parametrize(
    "error", [errors.InvalidArgument("cut file"), errors.Internal("?"), ValueError("bad")]
)
def test_a_lasting_error_is_left_alone(world: World, error: Exception) -> None:
    world.want(spec(1))
    world.finish(error)
    for _ in range(100):  # a poll that finds the same
        world.loop.advance(5.0)
        world.want(spec(1), again=False)
    assert world.times() == [0.0]
    assert world.states() == [(1, "FAILED", str(error), None)]


def test_a_poll_does_not_bring_a_retry_forward(world: World) -> None:
    world.want(spec(1))
    world.finish(errors.Unavailable("no device"))
    world.loop.advance(0.9)
    world.want(spec(1), again=False)
    assert world.times() == [0.0]
    world.loop.advance(0.1)
    assert world.times() == [0.0, 1.0]


def test_who_asks_need_not_wait_and_begins_the_count_anew(world: World) -> None:
    world.make(retry=RetryRule(limit=1, jitter=0.0))
    world.want(spec(1))
    world.finish(errors.Unavailable("no device"))
    world.loop.advance(1.0)
    world.finish(errors.Unavailable("no device"))
    world.loop.advance(HOUR_S)
    assert len(world.times()) == 2
    world.want(spec(1))
    assert len(world.times()) == 3
    world.finish(errors.Unavailable("no device"))
    world.loop.advance(1.0)
    assert len(world.times()) == 4


def test_another_spec_begins_the_count_anew(world: World) -> None:
    world.want(spec(1, "a"))
    world.finish(errors.Unavailable("no device"))
    world.loop.advance(1.0)
    world.finish(errors.Unavailable("no device"))
    assert world.states()[0][3] == 4.0
    world.want(spec(1, "b"), again=False)
    world.finish(errors.Unavailable("no device"))
    assert world.states()[0][3] == 1.0


def test_a_version_serves_on_while_its_replacement_is_tried_again(world: World) -> None:
    world.want(spec(1, "a"))
    world.finish()
    world.want(spec(1, "b"))
    world.finish(errors.ResourceExhausted("no memory"))
    why = "serves on as it was; the new one failed: no memory"
    assert world.states() == [(1, "READY", why, 1.0)]
    world.loop.advance(1.0)
    world.finish()
    assert world.states() == [(1, "READY", "", None)]
    assert world.core.published == {("m", 1): "b"}


def test_what_is_wanted_as_it_serves_needs_no_load(world: World) -> None:
    world.want(spec(1, "a"))
    world.finish()
    world.want(spec(1, "b"))
    world.want(spec(1, "a"))  # taken back while it loads
    world.finish(errors.InvalidArgument("cut file"))
    assert len(world.times()) == 2
    assert world.states() == [(1, "READY", "", None)]


# --- told


def test_the_log_has_a_reason_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.want(spec(1))
    for reason in ("no device", "no device", "no memory", "no memory"):
        world.finish(errors.Unavailable(reason))
        world.loop.advance(world.states()[0][3] or 0)
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == [
        "m version 1 failed to load: no device (tried again in 1.0 s)",
        "m version 1 failed to load: no memory (tried again in 16.0 s)",
    ]


def test_what_is_wrong_before_a_load_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def poll(reason: str) -> None:
        world.want(failures=[ModelState("m", None, "FAILED", reason)] if reason else [], again=False)

    for reason in ["m/config.pbtxt:7: ?"] * 5 + ["m/config.pbtxt:8: ?", "", "m/config.pbtxt:8: ?"]:
        poll(reason)
    assert caplog.messages == ["m/config.pbtxt:7: ?", "m/config.pbtxt:8: ?", "m/config.pbtxt:8: ?"]
    assert world.reconciler.counts.failures == {("m", "", "configuration"): 3}


def test_why_a_version_is_kept_is_told_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.want(spec(1))
    world.finish()
    for broken in [True, True, True, False, True]:
        world.want(spec(1), again=False)
        if broken:
            world.reconciler.keep_serving("m", 1, "config.pbtxt:7: ?")
            assert world.states()[0][2] == "serves on as it was; the new one failed: config.pbtxt:7: ?"
        else:
            assert world.states()[0][2] == ""
    assert caplog.messages.count("config.pbtxt:7: ?") == 2


# --- too slow


def test_a_load_may_take_as_long_as_its_limit(world: World) -> None:
    world.make(load_timeout_s=60.0)
    world.want(spec(1))
    world.loop.advance(59.999)
    world.finish()
    assert world.states() == [(1, "READY", "", None)]


def test_a_load_beyond_its_limit_fails_and_its_result_is_thrown_away(world: World) -> None:
    world.make(load_timeout_s=60.0, retry=RetryRule(limit=1, jitter=0.0))
    world.want(spec(1))
    world.loop.advance(60.0)
    late = world.core.late()
    why = "loading took longer than 60 s (--load-timeout-secs)"
    assert world.states() == [(1, "FAILED", f"{why}; {STILL_RUNS}", None)]
    assert (len(late), world.reconciler.hung, world.reconciler.counts.timeouts) == (1, 1, 1)
    world.loop.advance(HOUR_S)
    assert world.times() == [0.0], "not tried again while it still runs"
    world.finish(call=late[0])
    assert (world.core.published, world.reconciler.hung) == ({}, 0)
    assert world.states() == [(1, "FAILED", why, 1.0)]
    world.loop.advance(1.0)
    world.finish()
    assert world.states() == [(1, "READY", "", None)]


def test_what_served_serves_on_beside_a_load_beyond_its_limit(world: World) -> None:
    world.make(load_timeout_s=60.0)
    world.want(spec(1, "a"))
    world.finish()
    world.want(spec(1, "b"))
    world.loop.advance(60.0)
    assert world.states()[0][1] == "READY"
    world.finish(call=world.core.late()[0])
    assert world.core.published == {("m", 1): "a"}


def test_a_new_spec_is_loaded_beside_the_late_one(world: World) -> None:
    world.make(load_timeout_s=60.0)
    world.want(spec(1, "a"))
    world.loop.advance(60.0)
    world.want(spec(1, "b"), again=False)
    assert world.times() == [0.0, 60.0]
    world.finish(call=world.core.loads()[0])
    world.finish(call=world.core.late()[0])
    assert world.core.published == {("m", 1): "b"}


@pytest.mark.parametrize(
    ("server", "model", "limit"), [(60.0, None, 60.0), (60.0, 5.0, 5.0), (0.0, 5.0, 5.0)]
)
def test_a_model_may_have_its_own_limit(
    world: World, server: float, model: float | None, limit: float
) -> None:
    world.make(load_timeout_s=server)
    world.want(spec(1), manner=Manner(load_timeout_s=model))
    world.loop.advance(limit - 0.001)
    assert world.core.loads()
    world.loop.advance(0.001)
    assert not world.core.loads()


@pytest.mark.parametrize(("server", "model"), [(0.0, None), (60.0, 0.0)])
def test_no_limit(world: World, server: float, model: float | None) -> None:
    world.make(load_timeout_s=server)
    world.want(spec(1), manner=Manner(load_timeout_s=model))
    world.loop.advance(24 * HOUR_S)
    assert world.core.loads()


def test_a_load_that_ends_at_its_limit_counts(world: World) -> None:
    """The engine has published it already: there is nothing to give up, and its end is on the way."""
    world.make(load_timeout_s=60.0)
    world.core.give_up_load = lambda model, version: False  # type: ignore[method-assign]
    world.want(spec(1))
    world.loop.advance(60.5)
    assert world.states()[0][1] == "LOADING"
    world.finish()
    assert world.states() == [(1, "READY", "", None)]


def hang(world: World, count: int) -> None:
    for number in range(count):
        world.want(spec(1, model=f"hangs{number}"), model=f"hangs{number}")
        assert world.core.loads(), f"load {number} did not begin"
        world.loop.advance(60.0)
    assert world.reconciler.hung == count


@pytest.mark.parametrize("hung", [MOST_HUNG - 1, MOST_HUNG])
def test_loads_that_hang_take_nobodys_place(world: World, hung: int) -> None:
    world.make(load_timeout_s=60.0, retry=RetryRule(limit=0))
    hang(world, hung)
    world.want(spec(1))
    world.finish(call=world.core.loads()[0])
    assert world.states() == [(1, "READY", "", None)]


def test_when_every_thread_hangs_loads_are_refused_until_one_comes_back(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.make(load_timeout_s=60.0, retry=RetryRule(limit=0))
    hang(world, MOST_HUNG + 1)
    world.want(spec(1))
    why = f"no loader thread is left: {MOST_HUNG + 1} loads hang beyond their time limit"
    assert world.states() == [(1, "FAILED", why, None)]
    assert world.reconciler.failed("m") == {1: why}
    assert world.loop.run_until_complete(world.reconciler.settle_model("m")) is None
    world.loop.advance(HOUR_S)
    assert len(world.core.threads.running) == MOST_HUNG + 1, "no more threads than that"
    world.finish(call=world.core.late()[0])
    assert world.core.loads(("m", 1))
    world.finish(call=world.core.loads()[0])
    assert world.states() == [(1, "READY", "", None)]


# --- resources first, sleep


def test_resources_first_unloads_before_it_loads(world: World) -> None:
    world.make(resource_preserving=True)
    world.want(spec(1))
    world.finish()
    world.want(spec(2))
    assert [c.name for c in world.core.threads.running] == ["unload-m-1"]
    world.finish()
    assert [c.name for c in world.core.threads.running] == ["load-m-2"]
    world.finish()
    assert world.core.published == {("m", 2): ""}


@pytest.mark.parametrize(
    ("server", "model", "first"), [(True, False, "load-m-2"), (False, True, "unload-m-1")]
)
def test_a_model_may_say_which_way(world: World, server: bool, model: bool, first: str) -> None:
    world.make(resource_preserving=server)
    world.want(spec(1), manner=Manner(resource_preserving=model))
    world.finish()
    world.want(spec(2))
    assert world.core.threads.running[0].name == first


def test_a_sleeping_model_is_unloaded_and_shown(world: World) -> None:
    world.want(spec(1), spec(2))
    world.finish()
    world.finish()
    world.loop.call(lambda: world.reconciler.set_asleep("m", True, "idle for 300 s"))
    assert {c.name for c in world.core.threads.running} == {"unload-m-1", "unload-m-2"}
    world.finish()
    world.finish()
    assert world.states() == [
        (1, "UNLOADED", "idle for 300 s", None),
        (2, "UNLOADED", "idle for 300 s", None),
    ]
    assert set(world.reconciler.wanted("m")) == {1, 2}
    world.want(spec(1), spec(2), again=False)
    assert world.core.threads.running == []
    world.loop.call(lambda: world.reconciler.set_asleep("m", False))
    assert [c.name for c in world.core.threads.running] == ["load-m-2"]


def test_a_model_may_sleep_before_it_is_wanted_and_not_after(world: World) -> None:
    world.loop.call(lambda: world.reconciler.set_asleep("m", True, "until somebody asks"))
    world.want(spec(1))
    assert world.states() == [(1, "UNLOADED", "until somebody asks", None)]
    world.want()
    world.want(spec(1))
    assert [c.name for c in world.core.threads.running] == ["load-m-1"]


def test_what_waits_for_a_thread_is_shown_and_may_be_taken_back(world: World) -> None:
    world.want(spec(1), spec(2))
    assert world.states() == [(1, "NEW", "waits for its turn to load", None), (2, "LOADING", "", None)]
    world.want(spec(2), spec(3))
    world.finish()
    assert [name for name, _ in world.begun] == ["load-m-2", "load-m-3"]


def test_priorities(world: World) -> None:
    for model, priority in (("a", 0), ("b", 0), ("c", 7)):
        world.want(spec(1, model=model), model=model, manner=Manner(priority=priority))
    for _ in range(3):
        world.finish()
    assert [name for name, _ in world.begun] == ["load-a-1", "load-c-1", "load-b-1"]


def test_a_poll_does_not_repeat_an_unload_that_failed(world: World) -> None:
    world.want(spec(1))
    world.finish()
    world.want(spec(2))
    world.finish()
    world.finish(RuntimeError("the device is gone"))
    for _ in range(10):
        world.want(spec(2), again=False)
    assert world.times("unload-m-1") == [0.0]
    world.want(spec(2))  # somebody asks
    assert world.times("unload-m-1") == [0.0, 0.0]


def test_a_thousand_models_are_looked_at_one_by_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is planned when something happens to it, and not whenever something happens to another."""
    planned: list[str] = []
    plan_model = policy.plan_model

    def counting(model: str, *rest: Any) -> Any:
        planned.append(model)
        return plan_model(model, *rest)

    monkeypatch.setattr(reconciler, "plan_model", counting)
    for number in range(1000):
        world.loop.call(lambda n=number: world.reconciler.set_model(f"m{n}", {1: spec(1, model=f"m{n}")}))
    while world.core.threads.running:
        world.finish()
    assert len(world.core.published) == 1000
    assert len(planned) == 2000  # when it is wanted, when its load has ended
