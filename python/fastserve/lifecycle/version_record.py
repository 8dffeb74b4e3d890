"""What the reconciler remembers of one version: what serves, what is being loaded, how the last load ended."""

from __future__ import annotations

from dataclasses import dataclass

from fastserve.lifecycle.policy import Actual
from fastserve.lifecycle.transitions import Life
from fastserve.lifecycle.version_spec import VersionSpec


@dataclass(frozen=True)
class ModelState:
    """A model's version as users see it. `version` None: the model as a whole did not get as far as the engine."""

    model: str
    version: int | None
    state: str  # NEW LOADING WARMING READY DRAINING UNLOADED FAILED
    reason: str = ""  # of FAILED; else what is going on ("compiling")
    progress: float = 0.0  # 0..1 while loading
    retry_in_s: float | None = None  # of FAILED, or of READY whose replacement failed: when it is tried again


class VersionRecord:
    """Thread: the loop's."""

    def __init__(self, model: str, version: int) -> None:
        self.model = model
        self.version = version
        self.serves: Life | None = None  # READY or DRAINING
        self.serving: VersionSpec | None = None  # what that was loaded from; None: not by us
        self.loads: Life | None = None  # LOADING or WARMING
        self.what = ""  # the load does now
        self.progress = 0.0
        self.load_s = 0.0  # that the last load took, as far as it ended well
        self.tried: VersionSpec | None = None  # by the last load; None: is to be tried (again)
        self.error = ""  # of that, "" = well, or not yet
        self.failures = 0  # in a row, of the same spec
        self.retry_at: float | None = None  # seconds of the loop's clock
        self.refused: VersionSpec | None = None  # could not be tried, because every loader thread hangs
        self.late: list[VersionSpec] = []  # of loads that passed their time limit and still run
        self.logged = ""  # the last reason that the log has
        self.kept = ""  # why a newer form could not even be tried
        self.retry_pause_s: float | None = None  # as retry_at, from when the late load of the same spec ends
        self.unloading = False
        self.stuck = False  # its unload failed: not tried again until the wanted set changes

    @property
    def text(self) -> str:
        return f"{self.model} version {self.version}"

    @property
    def fields(self) -> dict[str, object]:
        """For log lines."""
        return {"model": self.model, "version": self.version}

    def actual(self) -> Actual:
        if self.loads is not None:
            return Actual(self.loads.state)
        if self.unloading:
            return Actual("DRAINING")
        if self.stuck:
            return Actual("DRAINING", stuck=True)
        if self.refused is not None:
            return Actual("READY" if self.serves is not None else "FAILED", self.refused)
        if self.serves is not None:
            return Actual(self.serves.state, self.tried, self.retry_at)
        if self.error:
            return Actual("FAILED", self.tried, self.retry_at)
        return Actual("NEW", self.tried)

    def try_again(self) -> None:
        """The next load is a first one, and is due now; unless one runs. The reason of the last one is shown until then."""
        if self.loads is None:
            self.tried, self.logged = self.serving, ""
            self.failures, self.retry_at, self.retry_pause_s, self.refused = 0, None, None, None

    def serves_as_wanted(self) -> None:
        """A newer form that failed is forgotten."""
        if self.loads is None:
            self.try_again()
            self.error = ""

    # --- a load

    def load_begins(self, spec: VersionSpec) -> bool:
        """False: refused, because the version is in no state for it."""
        busy = self.loads or (
            self.serves if self.serves is not None and self.serves.state != "READY" else None
        )
        if busy is not None:
            return busy.to("LOADING")  # which the table does not have: it says so in the log
        if spec != self.tried:
            self.failures, self.logged = 0, ""
        self.tried, self.error, self.retry_at, self.retry_pause_s = spec, "", None, None
        self.refused = None
        self.what, self.progress = "", 0.0
        self.loads = Life(self.text)
        return self.loads.to("LOADING")

    def load_ended(self, spec: VersionSpec) -> None:
        """Well: this load serves, and what did before is gone."""
        assert self.loads is not None
        if self.loads.state == "LOADING":
            self.loads.to("WARMING")
        self.loads.to("READY")
        if self.serves is not None:
            self.serves.to("DRAINING", "UNLOADED")
        self.serves, self.loads = self.loads, None
        self.serving, self.failures, self.logged = spec, 0, ""

    def load_failed(self, reason: str) -> None:
        """`retry_at` is for the caller to set."""
        if self.loads is not None:
            self.loads.failed()
        self.loads = None
        self.error = reason
        self.failures += 1

    # --- an unload

    def unload_begins(self) -> bool:
        """False: refused, because the version is in no state for it."""
        if self.loads is not None:
            return self.loads.to("DRAINING")
        self.unloading = self.serves is None or self.serves.to("DRAINING")
        return self.unloading

    def unload_failed(self) -> None:
        if self.serves is not None:
            self.serves.failed()
        self.unloading, self.stuck = False, True

    def unload_ended(self) -> None:
        if self.serves is not None:
            self.serves.to("UNLOADED")
        self.serves, self.serving, self.unloading = None, None, False
        self.tried, self.error, self.kept = None, "", ""
        self.try_again()

    @property
    def is_late(self) -> bool:
        """The load that failed last passed its time limit and still runs."""
        return bool(self.error) and self.tried in self.late

    @property
    def is_blank(self) -> bool:
        """Nothing is known that somebody could miss."""
        return self.actual() == Actual("NEW") and not self.late

    def adopt(self, ready: bool) -> None:
        """What the engine says where we do not know: whether it serves."""
        self.stuck = False
        self.serves = Life(self.text, "READY") if ready else None
        self.serving = self.serving if ready else None
