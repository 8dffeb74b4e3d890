from __future__ import annotations

import pytest

from fastserve.client.retry import NEVER, Fate, Retry, fate_of_unavailable

POLICY = Retry(attempts=4, first_delay=0.1, max_delay=0.3)


def delay(
    attempt: int, fate: Fate, *, idempotent: bool = False, left: float | None = None, chance: float = 0.0
):  # type: ignore[no-untyped-def]
    deadline = None if left is None else 1000.0 + left
    return POLICY.delay(attempt, fate, idempotent=idempotent, now=1000.0, deadline=deadline, chance=chance)


def test_pauses_double_up_to_the_greatest() -> None:
    assert [delay(n, Fate.NOT_PROCESSED) for n in (1, 2, 3)] == [0.05, 0.1, 0.15]
    assert delay(1, Fate.NOT_PROCESSED, chance=0.5) == pytest.approx(0.075)
    assert delay(1, Fate.NOT_PROCESSED, chance=0.999) < 0.1


def test_attempts_are_bounded() -> None:
    assert delay(3, Fate.NOT_PROCESSED) is not None
    assert delay(4, Fate.NOT_PROCESSED) is None
    assert NEVER.delay(1, Fate.NOT_PROCESSED, idempotent=True, now=0, deadline=None, chance=0) is None


def test_only_what_did_not_run_or_may_run_twice() -> None:
    assert delay(1, Fate.MAY_HAVE_RUN) is None
    assert delay(1, Fate.MAY_HAVE_RUN, idempotent=True) == 0.05
    assert delay(1, Fate.ANSWERED, idempotent=True) is None


def test_a_pause_must_end_before_the_deadline() -> None:
    assert delay(1, Fate.NOT_PROCESSED, left=0.051) == 0.05
    assert delay(1, Fate.NOT_PROCESSED, left=0.05) is None
    assert delay(1, Fate.NOT_PROCESSED, left=-1.0) is None


@pytest.mark.parametrize(
    ("message", "fate"),
    [
        ("[request id: 1] Exceeds maximum queue size", Fate.NOT_PROCESSED),
        ("Request for unknown model: 'm' version 3 is not at ready state", Fate.NOT_PROCESSED),
        ("the server is shutting down", Fate.NOT_PROCESSED),
        ("failed to connect to all addresses; last error: ... Connection refused", Fate.NOT_PROCESSED),
        ("Stream removed (RST_STREAM (Received RST_STREAM with error code 7))", Fate.NOT_PROCESSED),
        ("Stream removed (Socket closed)", Fate.MAY_HAVE_RUN),
        ("upstream connect error or disconnect/reset before headers", Fate.MAY_HAVE_RUN),
        ("Request timeout expired", Fate.MAY_HAVE_RUN),
        ("", Fate.MAY_HAVE_RUN),
    ],
)
def test_unavailable_is_looked_at_closely(message: str, fate: Fate) -> None:
    assert fate_of_unavailable(message) is fate
