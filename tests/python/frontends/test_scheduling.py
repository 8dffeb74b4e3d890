from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from fastserve.frontends.scheduling_picture import picture
from fastserve.frontends.scheduling_words import capacity_per_s, milliseconds, sentences


def cost(rows: int, mean_ms: float, high_ms: float = 0, samples: int = 10) -> dict[str, int]:
    high = high_ms or mean_ms * 1.1
    return {"rows": rows, "mean_ns": int(mean_ms * 1e6), "high_ns": int(high * 1e6), "samples": samples}


def view(**changes: Any) -> Any:
    costs = [cost(1, 8), cost(2, 13), cost(4, 22), cost(8, 40)]
    return {
        "model": "resnet",
        "version": 3,
        "target_p99_ns": 0,
        "max_rows": 32,
        "max_queue_delay_ns": 0,
        "max_queue_requests": 1024,
        "max_queue_age_ns": 0,
        "preferred_rows": [],
        "prepared_rows": [1, 2, 4, 8],
        "pads": False,
        "waiting": 3,
        "arrivals_per_s": 100.0,
        "levels": [],
        "instances": [{"name": "resnet 0", "busy": True, "costs": costs}],
        "decisions": {"no gain": 30, "cheapest": 10, "full": 0},
        "batches": {1: 30, 8: 10},
        "waits": 0,
        "refusals": {},
        **changes,
    }


def said(**changes: Any) -> str:
    return "\n".join(sentences(view(**changes)))


@pytest.mark.parametrize(
    ("ns", "text"),
    [(812_000, "812 µs"), (7_534_000, "7.53 ms"), (41_200_000_000, "41.2 s"), (999, "0.999 µs"), (0, "0 µs")],
)
def test_times(ns: int, text: str) -> None:
    assert milliseconds(ns) == text


def test_a_busy_model_in_words() -> None:
    text = said()
    assert "Batches of up to 32 rows on 1 instance, prepared for 1, 2, 4, 8." in text
    assert "1 row takes 8 ms (95th percentile 8.8 ms), 8 rows 40 ms: the best size, 1.6 times" in text
    assert "100 rows a second arrive, 200 could be served (50 %); 3 requests wait now." in text
    assert "In the last minute 40 batches ran, of 2.75 rows on average:" in text
    assert "- 75 % because that was all there was, and waiting for company would not have paid" in text
    assert "- 25 % because a larger batch would have cost more for each row" in text
    assert "no more rows fitted" not in text  # never happened


def test_the_target_is_said_and_whether_it_can_be_met() -> None:
    assert "Target: p99 within 25 ms." in said(target_p99_ns=25_000_000)
    assert "cannot be met" not in said(target_p99_ns=25_000_000)
    assert "The target cannot be met: 1 row alone takes 8.8 ms" in said(target_p99_ns=5_000_000)
    assert "No latency target" in said()


def test_overload_and_refusals() -> None:
    text = said(arrivals_per_s=400.0, refusals={"too_late": 7, "queue_full": 0})
    assert "(200 %)" in text
    assert "more than there is room for" in text
    assert "7 requests refused in the last minute: too late." in text
    assert "queue full" not in text


def test_a_model_that_nobody_asked() -> None:
    text = said(
        instances=[{"name": "x 0", "busy": False, "costs": []}],
        batches={},
        decisions={},
        arrivals_per_s=0.0,
        waiting=0,
    )
    assert "Nothing was run yet" in text
    assert "No batch ran in the last minute." in text
    assert "Hardly anything arrives at present; 0 requests wait now." in text


def test_larger_batches_that_gain_nothing() -> None:
    flat = [{"name": "x 0", "busy": False, "costs": [cost(1, 10), cost(2, 21)]}]
    assert "larger batches serve no more rows per second" in said(instances=flat)


def test_priorities() -> None:
    def level(priority: int, waiting: int) -> dict[str, Any]:
        return {
            "priority": priority,
            "waiting": waiting,
            "max_requests": 0,
            "timeout_ns": 0,
            "on_timeout": "reject",
        }

    assert "Waiting: 2 of priority 1, 9 of priority 3." in said(
        levels=[level(1, 2), level(2, 0), level(3, 9)]
    )


def test_the_capacity_counts_every_instance() -> None:
    two = [{"name": f"x {i}", "busy": False, "costs": [cost(8, 40, samples=i)]} for i in range(2)]
    assert capacity_per_s(view(instances=two)) == pytest.approx(400)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_p99_ns": 25_000_000},
        {"batches": {}},
        {"batches": {1: 1, 64: 5}},  # a size whose cost is not known
        {"instances": [{"name": "x", "busy": False, "costs": [cost(4, 3)]}]},
        {"instances": []},
        {"model": "<b>&"},
    ],
)
def test_the_picture_is_well_formed_and_inside_its_frame(changes: dict[str, Any]) -> None:
    drawn = ET.fromstring(picture(view(**changes)))
    width, height = float(drawn.get("width", 0)), float(drawn.get("height", 0))
    for circle in drawn.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= float(circle.get("cx", -1)) <= width
        assert 0 <= float(circle.get("cy", -1)) <= height
    for bar in drawn.iter("{http://www.w3.org/2000/svg}rect"):
        assert float(bar.get("height", -1)) >= 0


def test_the_queue_limit_says_what_it_counts() -> None:
    assert "Only the queue limit refuses: 1,024 requests." in said()
    assert "Only the queue limit refuses: 1,024 requests, or as many as are served within 1 s." in said(
        max_queue_age_ns=1_000_000_000
    )
