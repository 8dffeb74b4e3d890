"""Labels of versions: "stable" for one version, "canary" for several with weights; "default" for requests that name none.

    labels = VersionLabels(core)
    labels.configured("digits", (("stable", ((3, 1),)),))     # what model.yaml or a list of models says
    labels.assign("digits", "canary", {3: 95, 4: 5})           # what somebody asked for while it runs
    labels.change("digits", {"stable": {4: 1}, "canary": None}, expected={"stable": {3: 1}})
    labels.remove("digits", "canary")

What was assigned wins over the configuration until it is removed. Versions need not be ready, or there at all: a label stands
for those that are ready. The engine resolves it for each request (csrc/model/version_table.h); here is who said what.

Runs on the event loop's thread, or on one other thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fastserve import _core
from fastserve.errors import FailedPrecondition, FastserveError, InvalidArgument, NotFound, ResourceExhausted
from fastserve.label_text import MAX_ECHO_CHARS, Weights, weights_of

logger = logging.getLogger("fastserve.lifecycle")

MAX_LABELS = 64  # of a model: kMaxLabels of csrc/model/version_label.h

Configured = Iterable[tuple[str, Iterable[tuple[int, float]]]]  # as FoundModel.labels has them


class Core(Protocol):
    """The part of _core.Engine that is used here."""

    def set_labels(self, model: str, labels: Mapping[str, Mapping[int, int]]) -> None: ...
    def labels(self) -> list[_core.LabelStatus]: ...


@dataclass(frozen=True)
class LabelledVersion:
    version: int
    weight: int
    ready: bool
    requests: int  # by the label, for this version, since it was first given to it


@dataclass(frozen=True)
class Label:
    name: str
    source: str  # "configured" or "assigned"
    versions: tuple[LabelledVersion, ...]  # ascending


class VersionLabels:
    def __init__(
        self, core: Core, *, on_change: Callable[[], None] | None = None, shared: bool = False
    ) -> None:
        """`on_change` is called after what is assigned has changed: for whoever keeps it across restarts. `shared`: others
        set labels of the engine as well (a program that embeds it); theirs count as configured."""
        self._core = core
        self._shared = shared
        self.on_change = on_change
        self._configured: dict[str, dict[str, Weights]] = {}
        self._assigned: dict[str, dict[str, Weights]] = {}

    # --- from the configuration

    def configured(self, model: str, labels: Configured) -> None:
        """Replaces what the configuration said of the model before. What is wrong is logged, and the rest holds: a label must
        not keep a model from being served."""
        wanted: dict[str, Weights] = {}
        for name, versions in labels:
            try:
                wanted[name] = weights_of(name, dict(versions))
            except InvalidArgument as error:
                logger.error("%s: %s", model, error, extra={"model": model})
        if wanted == self._configured.get(model, {}):
            return
        before = self._configured.get(model, {})
        _put(self._configured, model, wanted)
        try:
            self._push(model)
        except FastserveError as error:
            _put(self._configured, model, before)
            logger.error("%s: %s; the labels stay as they were", model, error, extra={"model": model})

    # --- by request

    def assign(self, model: str, label: str, versions: Mapping[int, float]) -> None:
        """InvalidArgument, ResourceExhausted; then nothing has changed."""
        self.change(model, {label: versions})

    def remove(self, model: str, label: str) -> None:
        """What the configuration says holds again. NotFound: there is no such label; FailedPrecondition: it was not assigned,
        the configuration says it."""
        self.change(model, {label: None})

    def change(
        self,
        model: str,
        changes: Mapping[str, Mapping[int, float] | None],
        expected: Mapping[str, Mapping[int, float] | None] | None = None,
    ) -> None:
        """Several at once (None: removed): no request sees one of them changed and another not. `expected`: what labels have to
        stand for now (None: for nothing), else FailedPrecondition and nothing changes."""
        if self._shared:
            self._take_over(model)
        now = self._merged(model)
        for label, versions in (expected or {}).items():
            wanted = None if versions is None else weights_of(label, versions)
            if _proportions(now.get(label)) != _proportions(wanted):
                raise FailedPrecondition(
                    f"label '{label[:MAX_ECHO_CHARS]}' of model '{model}' is {_shown(now.get(label))}, not {_shown(wanted)}"
                )
        before = self._assigned.get(model, {})
        after = dict(before)
        for label, versions in changes.items():
            if versions is not None:
                after[label] = weights_of(label, versions)
            elif after.pop(label, None) is None:
                raise self._not_assigned(model, label)
        if len(after.keys() | self._configured.get(model, {}).keys()) > MAX_LABELS:
            raise ResourceExhausted(f"labels: a model may have {MAX_LABELS}")
        _put(self._assigned, model, after)
        try:
            self._push(model)
        except BaseException:
            _put(self._assigned, model, before)
            raise
        if after != before and self.on_change is not None:
            self.on_change()

    def clear(self, model: str) -> None:
        """Removes all that was assigned to the model."""
        self.change(model, dict.fromkeys(self._assigned.get(model, {})))

    def assigned(self) -> dict[str, dict[str, Weights]]:
        """Model -> label -> version -> weight, of what was assigned by request: to be kept across restarts."""
        return {
            model: {name: dict(versions) for name, versions in labels.items()}
            for model, labels in self._assigned.items()
        }

    def restore(self, assigned: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
        """What `assigned` gave; on_change is not called. InvalidArgument, ResourceExhausted for what cannot be."""
        silent, self.on_change = self.on_change, None
        try:
            for model, labels in assigned.items():
                self.change(model, labels)
        finally:
            self.on_change = silent

    # --- reading

    def of(self, model: str) -> list[Label]:
        """By name; empty: it has none."""
        mine = [status for status in self._core.labels() if status.model == model]
        found: dict[str, list[LabelledVersion]] = {}
        for s in mine:
            found.setdefault(s.label, []).append(LabelledVersion(s.version, s.weight, s.ready, s.requests))
        assigned = self._assigned.get(model, {})
        return [
            Label(name, "assigned" if name in assigned else "configured", tuple(versions))
            for name, versions in sorted(found.items())
        ]

    def label(self, model: str, name: str) -> Label:
        """NotFound: the model has no such label."""
        for label in self.of(model):
            if label.name == name:
                return label
        raise _unknown(model, name)

    def _take_over(self, model: str) -> None:
        assigned = self._assigned.get(model, {})
        theirs: dict[str, Weights] = {}
        for s in self._core.labels():
            if s.model == model and s.label not in assigned:
                theirs.setdefault(s.label, {})[s.version] = s.weight
        _put(self._configured, model, theirs)

    def _merged(self, model: str) -> dict[str, Weights]:
        return self._configured.get(model, {}) | self._assigned.get(model, {})

    def _push(self, model: str) -> None:
        self._core.set_labels(model, self._merged(model))

    def _not_assigned(self, model: str, label: str) -> FastserveError:
        if label in self._configured.get(model, {}):
            return FailedPrecondition(
                f"label '{label}' of model '{model}' was not assigned by a request: the configuration says it"
            )
        return _unknown(model, label)


def _unknown(model: str, label: str) -> NotFound:
    return NotFound(f"model '{model}' has no label '{label[:MAX_ECHO_CHARS]}'")


def _put(where: dict[str, dict[str, Weights]], model: str, labels: dict[str, Weights]) -> None:
    if labels:
        where[model] = labels
    else:
        where.pop(model, None)


def _proportions(weights: Weights | None) -> Weights | None:
    if weights is None:
        return None
    divisor = math.gcd(*weights.values())
    return {version: weight // divisor for version, weight in weights.items()}


def _shown(weights: Weights | None) -> str:
    if weights is None:
        return "not there"
    return ",".join(str(v) if len(weights) == 1 else f"{v}:{w}" for v, w in weights.items())
