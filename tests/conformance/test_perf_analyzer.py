"""Triton's own load generator finds everything that it asks for, measures without a complaint, and counts as we do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import perf_analyzer
from perf_analyzer import CASES, run

pytestmark = pytest.mark.skipif(bool(perf_analyzer.missing()), reason=perf_analyzer.missing())


@pytest.mark.parametrize(
    ("name", "protocol"),
    [pytest.param(name, p, id=f"{name} {p}") for name, case in CASES.items() for p in case.protocols],
)
def test_perf_analyzer(server: Any, tmp_path: Path, name: str, protocol: str) -> None:
    case = CASES[name]

    def successes() -> float:
        found = server.scrape().items()
        return float(
            sum(
                v
                for k, v in found
                if k.startswith("nv_inference_request_success{") and f'"{case.model}"' in k
            )
        )

    before = successes()
    address = server.grpc if protocol == "grpc" else server.http
    done = run(case, protocol, address, server.metrics, tmp_path / "table.csv")
    assert done.code == 0, done.output
    assert not done.complaints, done.output
    # What it read from our statistics: every request of its last windows, none of them failed.
    assert 0 < done.figure("Successful request count") <= successes() - before
    if "--verbose-csv" in case.arguments:
        head, row = (tmp_path / "table.csv").read_text().splitlines()[:2]
        figures = dict(zip(head.split(","), row.split(","), strict=True))
        assert float(figures["Inferences/Second"]) > 0
        assert int(figures["Server Compute Infer"]) >= 0


def test_a_model_that_is_not_there(server: Any, tmp_path: Path) -> None:
    done = run(
        perf_analyzer.Case("no_such_model", ()), "grpc", server.grpc, server.metrics, tmp_path / "table.csv"
    )
    assert done.code != 0
    assert "unknown model: 'no_such_model'" in done.output
