"""The scrape: well formed, with Triton's names, and figures that go together."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fastserve.metrics import EngineCollector, exposition

M1 = {"model": "plain", "version": "1"}


def io(**refused: int) -> Any:
    return SimpleNamespace(
        grpc_connections=2,
        http_connections=3,
        streams=4,
        bytes_received=500,
        bytes_sent=600,
        requests_refused=refused,
    )


@pytest.fixture
def samples(core: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    collector = EngineCollector(
        core, lambda: [io(malformed=1), io(malformed=2, queue_full=5)], lambda: 0.25, "1.2.3"
    )
    text = exposition(collector.collect()).decode()
    assert list(
        text_string_to_metric_families(text)
    )  # well formed; but the parser renames counters, so by hand:
    found = {}
    for line in text.splitlines():
        if (match := re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)) is not None:
            name, labels, number = match.groups()
            key = (name, tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels or ""))))
            assert key not in found, f"twice: {key}"
            found[key] = float(number)
    return found


def value(samples: Any, name: str, **labels: str) -> float:
    return float(samples[name, tuple(sorted(labels.items()))])


def test_tritons_counters(samples: Any) -> None:
    expected = {
        "nv_inference_request_success": 10,
        "nv_inference_count": 40,
        "nv_inference_exec_count": 20,
        "nv_inference_request_duration_us": 1000,
        "nv_inference_queue_duration_us": 2000,
        "nv_inference_compute_input_duration_us": 3000,
        "nv_inference_compute_infer_duration_us": 4000,
        "nv_inference_compute_output_duration_us": 5000,
        "nv_inference_pending_request_count": 7,
    }
    assert {name: value(samples, name, **M1) for name in expected} == expected
    failures = {
        r: value(samples, "nv_inference_request_failure", **M1, reason=r)
        for r in ("REJECTED", "CANCELED", "BACKEND")
    }
    assert failures == {"REJECTED": 1, "CANCELED": 2, "BACKEND": 3}


def test_only_versions_that_serve_are_counted(samples: Any) -> None:
    versions = {dict(labels)["version"] for name, labels in samples if name == "nv_inference_count"}
    assert versions == {"1", "3"}
    assert value(samples, "fastserve_model_state", model="broken", version="1", state="FAILED") == 1


def test_histograms_are_cumulative(samples: Any) -> None:
    bucket = [
        value(samples, "fastserve_stage_seconds_bucket", **M1, stage="total", le=le)
        for le in ("0.001", "0.1", "+Inf")
    ]
    assert bucket == [3, 5, 6]
    assert value(samples, "fastserve_stage_seconds_count", **M1, stage="total") == 6
    assert value(samples, "fastserve_stage_seconds_sum", **M1, stage="total") == 0.75


def test_io_loops_are_summed(samples: Any) -> None:
    assert value(samples, "fastserve_connections", protocol="grpc") == 4
    assert value(samples, "fastserve_connections", protocol="http") == 6
    assert value(samples, "fastserve_received_bytes_total") == 1000
    assert value(samples, "fastserve_requests_refused_total", reason="malformed") == 3
    assert value(samples, "fastserve_requests_refused_total", reason="queue_full") == 5
    assert value(samples, "fastserve_loop_lag_seconds") == 0.25
    assert value(samples, "fastserve_build_info", version="1.2.3") == 1


def test_a_version_that_is_unloaded_during_the_scrape_is_left_out(core: Any) -> None:
    def gone(model: str, version: int) -> Any:
        raise LookupError(model)

    core.statistics = gone
    text = exposition(EngineCollector(core, list, lambda: 0, "1").collect()).decode()
    assert "nv_inference_count{" not in text


def test_counters_are_announced_under_the_name_that_they_have() -> None:
    triton, ours = Metric("nv_inference_count", "a\nb\\", "counter"), Metric("f_total", "c", "counter")
    triton.add_sample("nv_inference_count", {"model": 'q"\\\n'}, 1)
    ours.add_sample("f_total", {}, 2)
    assert exposition([triton, ours, Metric("empty", "", "gauge")]).decode() == (
        "# HELP nv_inference_count a\\nb\\\\\n# TYPE nv_inference_count counter\n"
        'nv_inference_count{model="q\\"\\\\\\n"} 1.0\n'
        "# HELP f_total c\n# TYPE f_total counter\nf_total 2.0\n"
    )


def test_process_metrics_have_their_usual_names() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    text = exposition(registry.collect()).decode()
    assert "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total " in text
    assert "# TYPE process_resident_memory_bytes gauge" in text
