"""The scrape: well formed, with Triton's names, and figures that go together."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fastserve.metrics import EngineCollector, LoopLag, exposition, pieces
from fastserve.metrics.host import Host
from fastserve.metrics.poll import PollCollector
from fastserve.metrics.response_cache import response_cache
from fastserve.metrics.shared_memory import shared_memory
from fastserve.metrics.workers import workers

M1 = {"model": "plain", "version": "1"}


def io(**refused: int) -> Any:
    return SimpleNamespace(
        grpc_connections=2,
        http_connections=3,
        grpc_accepted=20,
        http_accepted=30,
        streams=4,
        longest_pass_seconds=0.125,
        bytes_received=500,
        bytes_sent=600,
        requests_refused=refused,
    )


@pytest.fixture
def samples(core: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    loops = [io(NOT_FOUND=1), io(NOT_FOUND=2, DEADLINE_EXCEEDED=5, DATA_LOSS=1, ABORTED=0)]
    lag = LoopLag()
    lag._window.add(0.25)
    collector = EngineCollector(core, lambda: loops, lag, "1.2.3", io_threads=2)
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
        for r in ("REJECTED", "CANCELED", "BACKEND", "OTHER")
    }
    assert failures == {"REJECTED": 1, "CANCELED": 2, "BACKEND": 2, "OTHER": 1}
    assert value(samples, "nv_model_load_duration_secs", **M1) == 1.5
    assert 0 <= value(samples, "nv_cpu_utilization") <= 1
    assert 0 < value(samples, "nv_cpu_memory_used_bytes") < value(samples, "nv_cpu_memory_total_bytes")


def test_the_response_cache(samples: Any) -> None:
    per_model = {
        "nv_cache_num_hits_per_model": 15,
        "nv_cache_num_misses_per_model": 16,
        "nv_cache_hit_duration_per_model": 6000,
        "nv_cache_miss_duration_per_model": 7000,
    }
    assert {name: value(samples, name, **M1) for name in per_model} == per_model
    of_all = {
        "fastserve_response_cache_capacity_bytes": 1000,
        "fastserve_response_cache_bytes": 900,
        "fastserve_response_cache_entries": 8,
        "fastserve_response_cache_evictions_total": 7,
        "fastserve_response_cache_too_large_total": 6,
    }
    assert {name: value(samples, name) for name in of_all} == of_all


def test_without_a_response_cache_nothing_is_said_of_it(core: Any) -> None:
    core.cache = dict.fromkeys(core.cache, 0)
    names = {family.name for family in response_cache(core, [])}
    assert names == set()


def test_workers(core: Any) -> None:
    assert list(workers(core)) == []
    of_a = SimpleNamespace(model="plain", version=1, instance="plain_0_0", state="UP", restarts=3)
    of_b = SimpleNamespace(model="plain", version=1, instance="plain_0_1", state="WAITING", restarts=0)
    core.worker_reports = [of_a, of_b]
    found = {(s.name, s.labels["instance"]): s.value for family in workers(core) for s in family.samples}
    assert found == {
        ("fastserve_worker_up", "plain_0_0"): 1,
        ("fastserve_worker_up", "plain_0_1"): 0,
        ("fastserve_worker_restarts_total", "plain_0_0"): 3,
        ("fastserve_worker_restarts_total", "plain_0_1"): 0,
    }


def test_only_versions_that_serve_are_counted(samples: Any) -> None:
    versions = {dict(labels)["version"] for name, labels in samples if name == "nv_inference_count"}
    assert versions == {"1", "3"}
    assert value(samples, "fastserve_model_state", model="broken", version="1", state="FAILED") == 1


def test_histograms_are_cumulative(samples: Any) -> None:
    bucket = [
        value(samples, "fastserve_request_stage_seconds_bucket", **M1, stage="total", le=le)
        for le in ("0.001", "0.1", "+Inf")
    ]
    assert bucket == [3, 5, 6]
    assert value(samples, "fastserve_request_stage_seconds_count", **M1, stage="total") == 6
    assert value(samples, "fastserve_request_stage_seconds_sum", **M1, stage="total") == 0.75


def test_io_loops_are_summed(samples: Any) -> None:
    assert value(samples, "fastserve_connections", protocol="grpc") == 4
    assert value(samples, "fastserve_connections", protocol="http") == 6
    assert value(samples, "fastserve_received_bytes_total") == 1000
    assert value(samples, "fastserve_connections_accepted_total", protocol="http") == 60
    assert value(samples, "fastserve_streams") == 8
    assert value(samples, "fastserve_build_info", version="1.2.3") == 1


def test_every_rejection_has_one_reason(samples: Any) -> None:
    rejected = {
        dict(labels)["reason"]: number
        for (name, labels), number in samples.items()
        if name == "fastserve_requests_rejected_total" and len(labels) == 1
    }
    assert rejected == {
        "deadline": 5,
        "invalid_argument": 0,
        "not_found": 3,
        "resource_exhausted": 0,
        "unavailable": 0,
        "unimplemented": 0,
        "data_loss": 1,
    }
    assert value(samples, "fastserve_requests_rejected_total", **M1, reason="queue_full") == 1
    assert value(samples, "fastserve_requests_rejected_total", **M1, reason="deadline") == 1
    assert value(samples, "fastserve_requests_failed_total", **M1) == 2


def test_batch_sizes(samples: Any) -> None:
    assert [value(samples, "fastserve_batch_rows_bucket", **M1, le=le) for le in ("1.0", "2.0", "+Inf")] == [
        4,
        10,
        10,
    ]
    assert value(samples, "fastserve_batch_rows_sum", **M1) == 16


def test_loop_lag_is_by_loop(samples: Any) -> None:
    found = {
        labels: number for (name, labels), number in samples.items() if name == "fastserve_loop_lag_seconds"
    }
    assert found == {
        (("loop", loop), ("quantile", quantile)): number
        for loop, quantile, number in (
            ("uvloop", "0.5", 0.25),
            ("uvloop", "0.99", 0.25),
            ("uvloop", "1", 0.25),
            ("io-0", "1", 0.125),
            ("io-1", "1", 0.125),
        )
    }


def test_without_native_threads_the_loop_has_no_passes(core: Any) -> None:
    text = exposition(EngineCollector(core, lambda: [io()], LoopLag(), "1").collect()).decode()
    assert 'loop="io-0"' not in text
    assert 'fastserve_loop_lag_seconds{loop="uvloop",quantile="1"} 0.0' in text


def test_a_version_that_is_unloaded_during_the_scrape_is_left_out(core: Any) -> None:
    def gone(model: str, version: int) -> Any:
        raise LookupError(model)

    core.statistics = gone
    text = exposition(EngineCollector(core, list, LoopLag(), "1").collect()).decode()
    assert "nv_inference_count{" not in text


def test_counters_are_announced_under_the_name_that_they_have() -> None:
    triton, ours = Metric("nv_inference_count", "a\nb\\", "counter"), Metric("f_total", "c", "counter")
    triton.add_sample("nv_inference_count", {"model": 'q"\\\n'}, 1)
    ours.add_sample("f_total", {}, 2.5)
    assert exposition([triton, ours, Metric("empty", "", "gauge")]).decode() == (
        "# HELP nv_inference_count a\\nb\\\\\n# TYPE nv_inference_count counter\n"
        'nv_inference_count{model="q\\"\\\\\\n"} 1\n'
        "# HELP f_total c\n# TYPE f_total counter\nf_total 2.5\n"
    )


def test_a_family_in_pieces_is_announced_once() -> None:
    def family(name: str, label: str) -> Metric:
        made = Metric(name, "text", "gauge")
        made.add_sample(name, {"model": label}, 1)
        return made

    made = list(pieces([family("a", "1"), family("a", "2"), Metric("a", "", "gauge"), family("b", "1")]))
    assert made == [
        b'# HELP a text\n# TYPE a gauge\na{model="1"} 1\n',
        b'a{model="2"} 1\n',
        b'# HELP b text\n# TYPE b gauge\nb{model="1"} 1\n',
    ]


def test_a_server_of_many_models_answers_in_small_pieces(make_version: Any, core: Any) -> None:
    core.versions = [make_version(f"m{i}", 1) for i in range(50)]
    made = list(pieces(EngineCollector(core, list, LoopLag(), "1").collect()))
    text = b"".join(made).decode()
    assert text.count("# TYPE fastserve_request_stage_seconds histogram") == 1
    assert text.count("fastserve_request_stage_seconds_count{") == 50
    assert max(piece.count(b"\n") for piece in made) <= 50 * 5


def test_process_metrics_have_their_usual_names() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    text = exposition(registry.collect()).decode()
    assert "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total " in text
    assert "# TYPE process_resident_memory_bytes gauge" in text


def test_the_machine_from_proc(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.cpu_utilization() is None
    assert host.memory_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemFree:  1 kB\nMemAvailable:  30 kB\n")
    assert host.memory_bytes() == (102400, 71680)
    stat = tmp_path / "stat"
    stat.write_text("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1\n")
    assert host.cpu_utilization() == 0.2
    stat.write_text("cpu  40 0 10 130 20 0 0 0 9 0\n")
    assert host.cpu_utilization() == 0.3
    assert host.cpu_utilization() == 0, "no tick since"


def test_shared_memory_while_it_is_allowed(core: Any) -> None:
    assert not list(shared_memory(core))
    core.shared_memory_allowed = True
    core.register_region("r", "/k", 0, 64)
    found = {s.name: s.value for family in shared_memory(core) for s in family.samples}
    assert found == {
        "fastserve_shared_memory_regions": 1,
        "fastserve_shared_memory_bytes": 64,
        "fastserve_shared_memory_broken_regions": 1,
        "fastserve_shared_memory_refused_total": 2,
    }


def test_the_figures_of_polls() -> None:
    figures = SimpleNamespace(
        polls=3, changes=2, seconds=0.5, changing=1, lost=(("/a", False), ("s3://b", True))
    )
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in PollCollector(figures).collect()
        for sample in family.samples
    }
    assert samples == {
        ("fastserve_repository_polls_total",): 3,
        ("fastserve_repository_changes_total",): 2,
        ("fastserve_repository_poll_seconds",): 0.5,
        ("fastserve_repository_changing",): 1,
        ("fastserve_repository_lost", "/a"): 0,
        ("fastserve_repository_lost", "s3://b"): 1,
    }
