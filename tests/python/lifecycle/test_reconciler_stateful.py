"""The reconciler against a model of it: any order of wishes, ends of loads and unloads, faults and passing time.

The model here is written from the promises and not from the code: what may begin, when, and what users see. Time is virtual.
`test_finds_what_is_wrong_with_the_policy` shows that it can fail: each of these changes of policy.py is found.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support.fake_core import FakeCore, Key
from tests.support.virtual_time import Call, VirtualLoop

from fastserve import errors
from fastserve.lifecycle import Reconciler, VersionSpec, policy, reconciler
from fastserve.lifecycle.loading import MOST_HUNG
from fastserve.lifecycle.policy import Manner
from fastserve.lifecycle.retry import RetryRule

logger = logging.getLogger("fastserve.lifecycle")

RULE = RetryRule(limit=2, first_s=1.0, factor=4.0, most_s=10.0, jitter=0.0)
PAUSES = [1.0, 4.0]  # what that comes to
LIMIT_S = 30.0
LOADERS = 2
MODELS = ["a", "b", "c"]
PASSING = [errors.Unavailable, errors.ResourceExhausted, errors.DeadlineExceeded, MemoryError, OSError]
LASTING = [errors.InvalidArgument, errors.NotFound, errors.Internal, errors.Unimplemented, ValueError]

VERSIONS = st.dictionaries(st.integers(1, 4), st.sampled_from("xy"), min_size=1, max_size=3)


def spec(model: str, version: int, variant: str) -> VersionSpec:
    return VersionSpec(model, version, "identity", parameters=(("variant", variant),))


@dataclass
class Failed:
    """What the model knows of the last load of a version."""

    spec: VersionSpec
    reason: str
    passing: bool
    times: int  # in a row
    not_before: float | None  # may be tried again by itself from then on; None: only when asked or changed
    late: tuple[Call, ...] = ()  # of the same spec: waits for these first


class _Log(logging.Handler):
    """Steps that the transition table does not have."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__()
        self.wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        if "is no transition" in record.getMessage():
            self.wrong.append(record.getMessage())


class ReconcilerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.core = FakeCore(self.begins, self.gives_up)
        self.reconciler: Reconciler = self.loop.call(
            lambda: Reconciler(
                self.core,
                loader_threads=LOADERS,
                load_timeout_s=LIMIT_S,
                retry=RULE,
                threads=self.core.threads,
                random=lambda: 0.5,
            )
        )
        self.wanted: dict[str, dict[int, VersionSpec]] = {}
        self.resources: set[str] = set()  # models that are resource-preserving
        self.asleep: set[str] = set()
        self.failed: dict[Key, Failed] = {}
        self.tries: dict[int, tuple[VersionSpec, float]] = {}  # id of a call -> of what, since when
        self.serving_before: set[str] = set()
        self.stuck: set[Key] = set()  # whose unload failed, since the last wish
        self.reasons = 0
        self.wrong: list[str] = []
        self.log = _Log(self.wrong)
        logger.addHandler(self.log)
        logger.propagate = False

    def teardown(self) -> None:
        try:
            self.settles_when_faults_stop()
        finally:
            logger.removeHandler(self.log)
            logger.propagate = True
            self.loop.end()

    # --- what may begin

    def begins(self, call: Call) -> None:
        key = call.key
        busy = self.core.loads(key) + self.core.unloads(key)
        try:
            assert not busy, f"{call.name} begins beside {busy}"
            if call.kind == "load":
                self.load_begins(call)
            else:
                self.unload_begins(key)
        except AssertionError as error:  # the reconciler would take it for an error of the engine
            self.wrong.append(str(error))

    def load_begins(self, call: Call) -> None:
        model, version = call.key
        now = self.loop.time()
        wish = self.wanted.get(model, {}).get(version)
        assert wish is not None, f"{call.name}: is not wanted"
        self.tries[id(call)] = (wish, now)
        assert model not in self.asleep, f"{call.name}: the model sleeps"
        assert len(self.core.loads()) < LOADERS, "more loads at a time than there are loaders"
        assert len(self.core.loads()) + len(self.core.late()) < LOADERS + MOST_HUNG
        if (before := self.failed.get(call.key)) is not None and before.spec == wish:
            assert before.not_before is not None, f"{call.name}: a lasting error is tried again by itself"
            assert now >= before.not_before, f"{call.name}: {before.not_before - now} s before its time"
            assert not before.late, f"{call.name}: beside its late load"
        assert self.core.published.get(call.key) != dict(wish.parameters)["variant"], (
            f"{call.name}: serves already"
        )
        if model in self.resources:
            unwanted = (
                self.core.serving(model) - set(self.wanted[model]) - {v for m, v in self.stuck if m == model}
            )
            assert not unwanted, f"{call.name}: beside {unwanted}, which has to go"
            assert version not in self.core.serving(model), f"{call.name}: beside what it replaces"
            leaving = {
                c.key for c in self.core.unloads() if c.key[0] == model and c.key in self.core.published
            }
            assert not leaving, f"{call.name}: beside {leaving}, which still goes"

    def unload_begins(self, key: Key) -> None:
        model, version = key
        wanted = self.wanted.get(model, {})
        if not wanted or model in self.asleep:
            return
        served = self.core.serving(model)
        if model in self.resources:
            outdated = version in served and self.core.published[key] != dict(
                wanted.get(version, spec(model, version, "")).parameters
            ).get("variant")
            assert version not in wanted or outdated, f"{key} is wanted as it serves"
            return
        assert version not in wanted, f"{key} is wanted"
        if version in served:
            left = served - {version}
            assert left & set(wanted) or (left and max(left) > version), f"{key} leaves a gap: {left}"

    # --- wishes

    @rule(model=st.sampled_from(MODELS), versions=VERSIONS, resources=st.booleans(), again=st.booleans())
    def want(self, model: str, versions: dict[int, str], resources: bool, again: bool) -> None:
        specs = {version: spec(model, version, variant) for version, variant in versions.items()}
        self.now_wanted(model, specs, resources, again)
        manner = Manner(resource_preserving=resources)
        self.loop.call(lambda: self.reconciler.set_model(model, specs, manner=manner, again=again))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data(), again=st.booleans())
    def want_the_same(self, data: st.DataObject, again: bool) -> None:
        """A poll that finds nothing new, or a client that asks for the load of what is wanted already."""
        model = data.draw(st.sampled_from(sorted(self.wanted)))
        self.now_wanted(model, self.wanted[model], model in self.resources, again)
        self.loop.call(lambda: self.reconciler.set_model(model, self.wanted[model], again=again))

    @rule(model=st.sampled_from(MODELS))
    def drop(self, model: str) -> None:
        self.not_wanted(model)
        self.loop.call(lambda: self.reconciler.set_model(model, {}))

    @rule(wanted=st.dictionaries(st.sampled_from(MODELS), VERSIONS))
    def want_all(self, wanted: dict[str, dict[int, str]]) -> None:
        specs = {m: {v: spec(m, v, variant) for v, variant in vs.items()} for m, vs in wanted.items()}
        for model in MODELS:
            if model in specs:
                self.now_wanted(model, specs[model], model in self.resources and model in self.wanted, False)
                self.stuck = {key for key in self.stuck if key[0] != model}
            else:
                self.not_wanted(model)
        self.loop.run_until_complete(self.reconciler.set_wanted(specs))
        self.loop.settle()

    @rule(model=st.sampled_from(MODELS), asleep=st.booleans())
    def sleep(self, model: str, asleep: bool) -> None:
        if model not in self.wanted:
            return
        (self.asleep.add if asleep else self.asleep.discard)(model)
        self.loop.call(lambda: self.reconciler.set_asleep(model, asleep, "idle"))

    def not_wanted(self, model: str) -> None:
        self.wanted.pop(model, None)
        self.asleep.discard(model)
        self.resources.discard(model)
        self.stuck = {key for key in self.stuck if key[0] != model}

    def now_wanted(self, model: str, specs: dict[int, VersionSpec], resources: bool, again: bool) -> None:
        if again or specs != self.wanted.get(model):
            self.stuck = {key for key in self.stuck if key[0] != model}
        self.wanted[model] = specs
        (self.resources.add if resources else self.resources.discard)(model)
        for version, wish in specs.items():
            key = (model, version)
            serves = self.core.published.get(key) == dict(wish.parameters)["variant"]
            if key in self.failed and not self.core.loads(key) and (again or serves):
                del self.failed[key]

    # --- ends

    @precondition(lambda self: self.core.loads())
    @rule(data=st.data())
    def load_works(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.core.loads()))
        self.failed.pop(call.key, None)
        self.end(call)

    @precondition(lambda self: self.core.loads())
    @rule(data=st.data(), kind=st.sampled_from(PASSING + LASTING))
    def load_fails(self, data: st.DataObject, kind: type[Exception]) -> None:
        call = data.draw(st.sampled_from(self.core.loads()))
        self.reasons += 1
        error = kind(f"reason {self.reasons}")
        self.now_failed(call, str(error), kind in PASSING)
        self.end(call, error)

    @precondition(lambda self: self.core.late())
    @rule(data=st.data(), works=st.booleans())
    def late_load_ends(self, data: st.DataObject, works: bool) -> None:
        self.late_load(data.draw(st.sampled_from(self.core.late())), works)

    def late_load(self, call: Call, works: bool) -> None:
        failed = self.failed.get(call.key)
        if failed is not None and call in failed.late:
            failed.late = tuple(c for c in failed.late if c is not call)
            if not failed.late and failed.passing and failed.times <= len(PAUSES):
                failed.not_before = self.loop.time() + PAUSES[failed.times - 1]
        before = dict(self.core.published)
        self.end(call, None if works else errors.Internal("late and broken"))
        assert self.core.published == before, "a load that was given up changed what serves"

    @precondition(lambda self: self.core.unloads())
    @rule(data=st.data(), works=st.booleans())
    def unload_ends(self, data: st.DataObject, works: bool) -> None:
        call = data.draw(st.sampled_from(self.core.unloads()))
        if works:
            self.failed.pop(call.key, None)
        else:
            self.stuck.add(call.key)
        self.end(call, None if works else RuntimeError("the device is gone"))

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 4.0, LIMIT_S - 1, LIMIT_S, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def gives_up(self, call: Call) -> None:
        if self.loop.time() != self.tries[id(call)][1] + LIMIT_S:
            self.wrong.append(f"{call.name} is given up at {self.loop.time()}")
        self.now_failed(call, f"loading took longer than {LIMIT_S:g} s (--load-timeout-secs)", True)

    def now_failed(self, call: Call, reason: str, passing: bool) -> None:
        model, version = call.key
        tried = self.tries[id(call)][0]
        before = self.failed.pop(call.key, None)
        wish = self.wanted.get(model, {}).get(version)
        if wish is not None and self.core.published.get(call.key) == dict(wish.parameters)["variant"]:
            return  # a newer form that is not wanted any more
        times = before.times + 1 if before is not None and before.spec == tried else 1
        late = tuple(c for c in self.core.late() if c.key == call.key and self.tries[id(c)][0] == tried)
        again = passing and times <= len(PAUSES) and not late
        not_before = self.loop.time() + PAUSES[times - 1] if again else None
        self.failed[call.key] = Failed(tried, reason, passing, times, not_before, late)

    def end(self, call: Call, outcome: Exception | None = None) -> None:
        self.core.finish(call, outcome)
        self.loop.settle()

    # --- what holds at any time

    @invariant()
    def nothing_began_that_should_not(self) -> None:
        assert self.wrong == []

    @invariant()
    def who_was_served_is_served(self) -> None:
        serving = {model for model in MODELS if self.core.serving(model)}
        for model in self.serving_before - serving:
            exempt = model not in self.wanted or model in self.asleep or model in self.resources
            assert exempt, f"{model} had a version that served and has none"
        self.serving_before = serving

    @invariant()
    def no_load_runs_beyond_its_limit(self) -> None:
        for call in self.core.loads():
            assert self.loop.time() < self.tries[id(call)][1] + LIMIT_S

    @invariant()
    def users_see_why(self) -> None:
        states = {(s.model, s.version): s for s in self.loop.call(self.reconciler.model_states)}
        for key, failed in self.failed.items():
            if (
                self.wanted.get(key[0], {}).get(key[1]) != failed.spec
                or self.core.loads(key)
                or self.core.unloads(key)
            ):
                continue
            state = states[key]
            refused = (
                len(self.core.late()) >= LOADERS + MOST_HUNG and "no loader thread is left" in state.reason
            )
            assert failed.reason in state.reason or refused, (key, state, failed)
            assert state.state == ("READY" if key in self.core.published else "FAILED")
            assert (state.retry_in_s is not None) == (failed.not_before is not None)

    @invariant()
    def who_may_be_tried_again_is(self) -> None:
        """With room, and in nobody's way."""
        places = LOADERS - max(0, len(self.core.late()) - MOST_HUNG)
        if len(self.core.loads()) >= places:
            return
        for (model, version), failed in self.failed.items():
            due = failed.not_before is not None and failed.not_before <= self.loop.time()
            wanted = model not in self.asleep and self.wanted.get(model, {}).get(version) == failed.spec
            leaving = [c for c in self.core.unloads() if c.key[0] == model]
            if due and wanted and not leaving and not any(m == model for m, _ in self.stuck):
                assert model in self.resources or self.core.loads((model, version)), (
                    f"{model} {version} waits"
                )

    @invariant()
    def settled_is_when_nothing_can_be_done(self) -> None:
        settled = self.loop.create_task(self.reconciler.settle())
        self.loop.settle()
        assert settled.done() == (not self.core.loads() and not self.core.unloads())
        settled.cancel()
        self.loop.settle()

    # --- in the end

    def faults_stop(self) -> None:
        for _ in range(200):
            if not self.core.threads.running:
                self.loop.advance(1000.0)
            if not self.core.threads.running:
                return
            for call in list(self.core.threads.running):
                if call.given_up:
                    self.late_load(call, works=True)
                else:
                    self.failed.pop(call.key, None)
                    self.end(call)
        raise AssertionError("does not come to rest")

    def settles_when_faults_stop(self) -> None:
        self.faults_stop()
        for model in MODELS:
            self.is_settled(model)
        for model, specs in sorted(self.wanted.items()):
            self.now_wanted(model, specs, model in self.resources, again=True)
            self.loop.call(lambda model=model, specs=specs: self.reconciler.set_model(model, specs))
        self.failed.clear()
        self.faults_stop()
        for model in MODELS:
            self.is_settled(model)

    def is_settled(self, model: str) -> None:
        wanted = {} if model in self.asleep else self.wanted.get(model, {})
        serving = {
            v: self.core.published[model, v] for v in self.core.serving(model) if (model, v) not in self.stuck
        }
        failed = {v for v in wanted if (f := self.failed.get((model, v))) is not None and f.spec == wanted[v]}
        for version, wish in wanted.items():
            if version not in failed and (model, version) not in self.stuck:
                assert serving.get(version) == dict(wish.parameters)["variant"], (
                    f"{model} {version}: {serving}"
                )
        kept = {
            key for key in self.core.failed if key[0] == model and key[1] not in self.wanted.get(model, {})
        }
        assert kept <= self.stuck, f"{kept} failed and are not wanted"
        left_over = set(serving) - set(wanted)
        most = 1 if wanted and model not in self.resources and not set(serving) & set(wanted) else 0
        assert len(left_over) <= most, f"{model}: {left_over} still serve beside {wanted}"


ReconcilerMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
TestReconciler = ReconcilerMachine.TestCase

# What to change in policy.py, and into what.
MUTANTS = {
    "the old one goes before the new one is there": ("ready = ready[:-1]", "ready = ready[:]"),
    "the oldest of the old ones is kept": ("ready = ready[:-1]", "ready = ready[1:]"),
    "a failed version is tried again at once": ("entry.retry_at <= now", "True"),
    "a lasting error is tried again": (
        "entry.retry_at is not None and entry.retry_at <= now",
        'entry.state == "FAILED"',
    ),
    "a failed version is never tried again": (
        "entry.retry_at is not None and entry.retry_at <= now",
        "False",
    ),
    "a new spec waits for a client": ("entry.tried != spec or", ""),
    "resources: what is replaced stays while its successor loads": (
        '(v in loads and actual[v].state == "READY")',
        "False",
    ),
    "resources: nobody waits for the old one to be gone": ("if in_the_way else", "if False else"),
    "resources: a stuck version stops everything": ("and not actual[v].stuck", ""),
    "asleep models load": ("if wish.asleep:", "if False:"),
    "asleep models stay loaded": ('return entry.state == "READY" or', "return"),
    "more loads than there is room for": ("max(0, room.loads)", "max(0, room.loads) + 1"),
    "what failed and is not wanted is kept": (
        'if actual[version].state == "FAILED"] + ready',
        "if False] + ready",
    ),
    "what is not wanted stays": (
        "unwanted = sorted(version for version in actual if version not in wish.versions)",
        "unwanted: list[int] = []",
    ),
    "resources: what is not wanted stays": ("v not in wish.versions or (v in loads", "(v in loads"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_finds_what_is_wrong_with_the_policy(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = MUTANTS[mutant]
    source = inspect.getsource(policy)
    assert source.count(old) == 1, f"{mutant}: policy.py has changed, this mutant has to change with it"
    changed: dict[str, Any] = dict(vars(policy))
    exec(compile(source.replace(old, new), policy.__file__, "exec"), changed)
    # The data types stay those of the module: only the rules are others.
    for name in ("Wish", "Actual", "Action", "Room", "Manner", "NOTHING"):
        changed[name] = getattr(policy, name)
    monkeypatch.setattr(reconciler, "plan_model", changed["plan_model"])
    monkeypatch.setattr(reconciler, "choose", changed["choose"])
    with pytest.raises((AssertionError, KeyError, ExceptionGroup)):
        run_state_machine_as_test(
            ReconcilerMachine,
            settings=settings(
                max_examples=1000,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
