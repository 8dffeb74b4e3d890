"""When the loop is called late, and that it is said once in a while and not more often."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from fastserve.metrics.loop_lag import (
    LATE_S,
    LATE_SAMPLES,
    PAUSE_S,
    PAUSE_SAMPLES,
    RECENT,
    WARN_EVERY_S,
    WINDOW,
    LagWindow,
    LoopLag,
    advice,
)


def window(*lags_s: float) -> LagWindow:
    made = LagWindow()
    for lag in lags_s:
        made.add(lag)
    return made


def test_quantiles_by_nearest_rank() -> None:
    assert LagWindow().quantiles() == {"0.5": 0, "0.99": 0, "1": 0}
    found = window(*(i / 1000 for i in range(200)), -1.0).quantiles()
    assert found == {"0.5": 0.099, "0.99": 0.197, "1": 0.199}


def test_what_is_older_than_the_window_is_forgotten() -> None:
    assert window(9.0, *[0.001] * (WINDOW - 1)).quantiles()["1"] == 9.0
    assert window(9.0, *[0.001] * WINDOW).quantiles()["1"] == 0.001


@pytest.mark.parametrize(
    ("lags", "warns"),
    [
        ([0.0] * RECENT, False),
        ([LATE_S] * LATE_SAMPLES, True),
        ([LATE_S] * (LATE_SAMPLES - 1), False),
        ([LATE_S * 0.99] * RECENT, False),
        ([LATE_S, 0.0] * LATE_SAMPLES, True),
        ([PAUSE_S] * PAUSE_SAMPLES, True),
        ([9.0] * (PAUSE_SAMPLES - 1) + [0.0] * 5, False),
        ([PAUSE_S] * PAUSE_SAMPLES + [0.0] * RECENT, False),
    ],
)
def test_high_is_half_of_the_samples_late_or_some_long_pauses(lags: list[float], warns: bool) -> None:
    assert (window(*lags).worth_a_warning(0.0) is not None) == warns


def test_one_warning_a_minute() -> None:
    busy = window(*[LATE_S] * RECENT, 0.02)
    assert busy.worth_a_warning(100.0) == 0.02
    assert busy.worth_a_warning(100.0 + WARN_EVERY_S - 1) is None
    assert busy.worth_a_warning(100.0 + WARN_EVERY_S) == 0.02


def test_the_advice_is_io_threads_unless_there_are_some() -> None:
    assert "--io-threads 1" in advice(0.012, 0)
    assert "12 ms" in advice(0.012, 0)
    assert "inference (--io-threads 2) does not" in advice(0.012, 2)


async def test_a_blocked_loop_shows_and_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.metrics.loop_lag.PERIOD_S", 0.001)
    lag = LoopLag()
    lag.start(asyncio.get_running_loop())
    with caplog.at_level(logging.WARNING):
        for _ in range(PAUSE_SAMPLES + 1):
            time.sleep(PAUSE_S * 1.1)  # noqa: ASYNC251 - what the test is about
            await asyncio.sleep(0.003)
    lag.stop()
    assert lag.quantiles()["1"] >= PAUSE_S
    assert sum("--io-threads" in r.message for r in caplog.records) == 1
