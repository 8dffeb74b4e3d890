"""When a request may be sent again, and after which pause. Pure: time and chance are arguments.

The rule: again only if the server cannot have run it, or if the caller said that running it twice does no harm
(`idempotent=True`; reading calls such as metadata always are). A passed deadline is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fate(Enum):
    """What is known about a request that did not succeed."""

    NOT_PROCESSED = (
        "not processed"  # never reached the server whole, or the server said that it refused it unrun
    )
    MAY_HAVE_RUN = "may have run"  # the connection broke or the time was up after it was sent
    ANSWERED = "answered"  # the server's final word: asking again would bring the same


# The words with which a server says that it did not run the request. UNAVAILABLE alone does not say so: proxies use it
# for connections that broke behind them, and gRPC libraries for those that broke before them.
_REFUSALS = (
    "exceeds maximum queue size",  # ours and Triton's: the queue is full
    "is not at ready state",  # ours and Triton's: still loading
    "is being unloaded",
    "is shutting down",
    "failed to connect to all addresses",  # grpcio: connection refused, no such socket
    "errors resolving",  # grpcio: the name has no address
    "error code 7)",  # grpcio: RST_STREAM with REFUSED_STREAM (RFC 9113, 8.7)
)


def fate_of_unavailable(message: str) -> Fate:
    """Of UNAVAILABLE (503) by the words that came with it."""
    lowered = message.lower()
    return Fate.NOT_PROCESSED if any(words in lowered for words in _REFUSALS) else Fate.MAY_HAVE_RUN


@dataclass(frozen=True)
class Retry:
    """`attempts` in all (1 = never again); pauses double from `first_delay` up to `max_delay` seconds, half of each
    by chance, so that clients that failed together do not come back together."""

    attempts: int = 3
    first_delay: float = 0.05
    max_delay: float = 2.0

    def delay(
        self, attempt: int, fate: Fate, *, idempotent: bool, now: float, deadline: float | None, chance: float
    ) -> float | None:
        """Seconds until attempt + 1, None = give up. `attempt` counts from 1; `now` and `deadline` in seconds of one
        clock; `chance` in [0, 1)."""
        if attempt >= self.attempts or fate is Fate.ANSWERED:
            return None
        if fate is Fate.MAY_HAVE_RUN and not idempotent:
            return None
        pause = min(self.max_delay, self.first_delay * 2.0 ** (attempt - 1)) * (1.0 + chance) / 2.0
        if deadline is not None and now + pause >= deadline:
            return None
        return pause


NEVER = Retry(attempts=1)
