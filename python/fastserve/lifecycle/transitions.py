"""The life of one load of a version, as data: NEW > LOADING > WARMING > READY > DRAINING > UNLOADED, any > FAILED.

The same table as csrc/model/version_state.cc; a test compares the two pair by pair. UNLOADED and FAILED are ends: another load
of the same number is another life, which runs beside the old one where a version that serves is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal, get_args

logger = logging.getLogger("fastserve.lifecycle")

State = Literal["NEW", "LOADING", "WARMING", "READY", "DRAINING", "UNLOADED", "FAILED"]

STATES: tuple[State, ...] = get_args(State)

TRANSITIONS: Mapping[State, frozenset[State]] = {
    "NEW": frozenset({"LOADING", "FAILED"}),
    "LOADING": frozenset({"WARMING", "FAILED"}),
    "WARMING": frozenset({"READY", "FAILED"}),
    "READY": frozenset({"DRAINING", "FAILED"}),
    "DRAINING": frozenset({"UNLOADED", "FAILED"}),
    "UNLOADED": frozenset(),
    "FAILED": frozenset(),
}


class Life:
    """Where one load of a version stands. Refuses every step that the table does not have. Thread: one."""

    __slots__ = ("_of", "_state")

    def __init__(self, of: str, state: State = "NEW") -> None:
        """`of`: for the log, "digits version 2"."""
        self._of = of
        self._state: State = state

    @property
    def state(self) -> State:
        return self._state

    def to(self, *states: State) -> bool:
        """One step after the other. False, with an error in the log and nothing done from there on: not in the table."""
        for state in states:
            if state not in TRANSITIONS[self._state]:
                logger.error(
                    "%s: %s > %s is no transition; it stays %s", self._of, self._state, state, self._state
                )
                return False
            self._state = state
        return True

    def failed(self) -> None:
        """From wherever it is; a life that has ended stays as it is."""
        if TRANSITIONS[self._state]:
            self.to("FAILED")
