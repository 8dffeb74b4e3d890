"""Known traffic, and three accounts of it that must agree: the statistics RPC, Triton's metrics and ours.

A server of its own for each driver, whose models nobody else uses, so that figures are absolute.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from model_repository import identity
from running_server import RunningServer
from tritonclient.utils import InferenceServerException
from wire import INFER, Infer, Refused, Rest, Tensor, fp32, grpc_infer, message

WIDTH = 4
SLOW_S = 0.3
MAX_QUEUE = 2
MAX_MESSAGE_BYTES = 1 << 20
SETTLE_S = 10.0
DASHBOARD = Path(__file__).resolve().parents[2] / "tools" / "grafana-dashboard.json"

STAGES = ("queue", "gather", "execute", "total")


def write_reshape(folder: Path) -> None:
    """x FP32[2,3], dims INT64[2] -> y: fails on the device when dims do not fit (0 = as in x)."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "dims"], ["y"])],
        "reshape",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
            helper.make_tensor_value_info("dims", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    folder.mkdir(parents=True)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        folder / "model.onnx",
    )


@dataclass
class Metered:
    server: RunningServer
    triton: Any  # tritonclient.grpc
    channel: grpc.Channel

    def statistics(self, model: str) -> Any:
        """The RPC's and the route's, which are the same."""
        over_grpc = self.triton.get_inference_statistics(model, as_json=True)["model_stats"][0]
        with urllib.request.urlopen(f"http://{self.server.http}/v2/models/{model}/stats", timeout=5) as r:
            over_rest = json.load(r)["model_stats"][0]
        assert numbers(over_grpc) == numbers(over_rest)
        return over_rest

    def scrape(self, model: str) -> dict[str, float]:
        """Of one model, without its labels: 'name' or 'name{stage="queue"}'."""
        labels = f'model="{model}",version="1"'
        found = {}
        for name, value in self.server.scrape().items():
            if f"{{{labels}" in name:
                found[name.replace(f"{{{labels}}}", "").replace(f"{{{labels},", "{")] = value
        return found

    def rejected(self) -> dict[str, float]:
        """What front ends refused, by reason."""
        pattern = re.compile(r'fastserve_requests_rejected_total{reason="(\w+)"}')
        return {m[1]: v for n, v in self.server.scrape().items() if (m := pattern.fullmatch(n))}

    def wait(self, model: str, condition: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        until = time.monotonic() + SETTLE_S
        while not condition(found := self.scrape(model)):
            assert time.monotonic() < until, found
            time.sleep(0.005)
        return found

    def settled(self, model: str) -> dict[str, float]:
        return self.wait(model, lambda s: s["fastserve_requests_in_flight"] == 0)


def numbers(stats: Any) -> Any:
    """protobuf's JSON writes 64-bit numbers as text and leaves zeros out."""
    if isinstance(stats, dict):
        found = {key: numbers(value) for key, value in stats.items()}
        return {key: value for key, value in found.items() if value not in (0, {}, [])}
    if isinstance(stats, list):
        return [numbers(each) for each in stats]
    return int(stats) if isinstance(stats, str) and stats.isdigit() else stats


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def metered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metered]:
    folder = tmp_path_factory.mktemp("metered")
    models = folder / "models"
    tensors = [("FP32", [WIDTH])]
    identity(models, "plain", tensors, max_batch=8)
    identity(models, "alone", tensors)
    for name in ("batched", "leaving"):
        identity(models, name, tensors, max_batch=4, delay_s=SLOW_S)
    for name in ("full", "late", "closed", "reset"):
        policy = f"max_queue_size: {MAX_QUEUE} allow_timeout_override: true"
        limit = f"dynamic_batching {{ default_queue_policy {{ {policy} }} }}"
        identity(models, name, tensors, max_batch=1, delay_s=SLOW_S, extra=limit)
    write_reshape(models / "reshape" / "1")
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    limits = ("--max-message-bytes", str(MAX_MESSAGE_BYTES), "--io-threads", threads)
    with RunningServer(models, folder, *limits) as server:
        triton = tritonclient.grpc.InferenceServerClient(server.grpc)
        with grpc.insecure_channel(server.grpc) as channel:
            yield Metered(server, triton, channel)
        triton.close()


def infer(metered: Metered, model: str, rows: int = 1, **kwargs: Any) -> Any:
    x = np.zeros((rows, WIDTH) if model != "alone" else (WIDTH,), np.float32)
    tensor = tritonclient.grpc.InferInput("INPUT0", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    return metered.triton.infer(model, [tensor], **kwargs)


def agree(metered: Metered, model: str) -> tuple[Any, dict[str, float]]:
    """Compares every figure that two or three accounts have; gives statistics and scrape to the caller."""
    scraped = metered.settled(model)
    stats = metered.statistics(model)
    by_stage = stats["inference_stats"]
    success, fail = by_stage["success"]["count"], by_stage["fail"]["count"]

    assert scraped["nv_inference_request_success"] == success
    assert scraped["nv_inference_count"] == stats["inference_count"]
    assert scraped["nv_inference_exec_count"] == stats["execution_count"]
    for stage in STAGES:
        assert scraped[f'fastserve_request_stage_seconds_count{{stage="{stage}"}}'] == success
    for ours, theirs in (
        ("total", "success"),
        ("queue", "queue"),
        ("gather", "compute_input"),
        ("execute", "compute_infer"),
    ):
        seconds = scraped[f'fastserve_request_stage_seconds_sum{{stage="{ours}"}}']
        assert seconds == pytest.approx(by_stage[theirs]["ns"] * 1e-9, rel=1e-9)
        name = "request" if ours == "total" else theirs
        assert scraped[f"nv_inference_{name}_duration_us"] == by_stage[theirs]["ns"] // 1000
        assert by_stage[theirs]["count"] == success
    output_us = scraped["nv_inference_compute_output_duration_us"]
    assert output_us == by_stage["compute_output"]["ns"] // 1000

    failures = {r: v for n, v in scraped.items() if (r := reason(n, "nv_inference_request_failure"))}
    rejected = {r: v for n, v in scraped.items() if (r := reason(n, "fastserve_requests_rejected_total"))}
    assert sum(failures.values()) == fail
    assert failures == {
        "REJECTED": rejected["queue_full"] + rejected["too_late"] + rejected["queue_timeout"],
        "CANCELED": rejected["cancelled"],
        "BACKEND": scraped["fastserve_requests_failed_total"],
        "OTHER": rejected["deadline"] + rejected["unloading"] + rejected["client_memory"],
    }

    batches = {b["batch_size"]: b["compute_infer"]["count"] for b in stats["batch_stats"]}
    assert sum(batches.values()) == stats["execution_count"] == scraped["fastserve_batch_rows_count"]
    assert scraped["fastserve_batch_rows_sum"] == sum(rows * count for rows, count in batches.items())
    for name, count in scraped.items():
        if bound := re.fullmatch(r'fastserve_batch_rows_bucket{le="([\d.]+)"}', name):
            assert count == sum(n for rows, n in batches.items() if rows <= float(bound[1])), name
    assert scraped["fastserve_requests_pending"] == scraped["nv_inference_pending_request_count"] == 0
    return stats, scraped


def reason(sample: str, family: str) -> str | None:
    match = re.fullmatch(family + r'{reason="(\w+)"}', sample)
    return match[1] if match else None


def encoded(metered: Metered, model: str, at_least: int) -> float:
    """A thread may have sent an answer and not counted it yet: waits for that."""
    name = 'fastserve_request_stage_seconds_count{stage="encode"}'
    return metered.wait(model, lambda s: s[name] >= at_least)[name]


def occupy(metered: Metered, pool: ThreadPoolExecutor, model: str, **kwargs: Any) -> Any:
    """A request that is on the device: from now on others wait."""
    before = metered.scrape(model)["fastserve_requests_in_flight"]
    running = pool.submit(infer, metered, model, **kwargs)
    metered.wait(
        model,
        lambda s: s["fastserve_requests_in_flight"] == before + 1 and s["fastserve_requests_pending"] == 0,
    )
    return running


# --- successes


def test_one_by_one(metered: Metered) -> None:
    rows = (1, 2, 3, 8, 1)
    for n in rows:
        infer(metered, "plain", n)
    stats, _ = agree(metered, "plain")
    assert stats["inference_stats"]["success"]["count"] == len(rows)
    assert stats["inference_count"] == sum(rows)
    assert stats["execution_count"] == len(rows)
    assert stats["inference_stats"]["fail"]["count"] == 0
    assert abs(stats["last_inference"] / 1000 - time.time()) < 30
    assert encoded(metered, "plain", len(rows)) == len(rows)
    # The stages are parts of the whole.
    total = stats["inference_stats"]["success"]["ns"]
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    assert 0 < sum(stats["inference_stats"][part]["ns"] for part in parts) <= total


def test_rest_counts_like_grpc(metered: Metered) -> None:
    rest = Rest(metered.server.http)
    for _ in range(3):
        assert rest.infer(Infer("alone", (fp32("INPUT0", WIDTH),)))[0] == 200
    rest.close()
    infer(metered, "alone")
    stats, _ = agree(metered, "alone")
    assert stats["inference_count"] == stats["execution_count"] == 4
    assert encoded(metered, "alone", 4) == 4


def test_a_batch_is_one_execution(metered: Metered) -> None:
    with ThreadPoolExecutor(4) as pool:
        first = occupy(metered, pool, "batched")
        waiting = [pool.submit(infer, metered, "batched") for _ in range(3)]
        metered.wait("batched", lambda s: s["fastserve_requests_pending"] == 3)
        assert metered.scrape("batched")["nv_inference_pending_request_count"] == 3
        for asked in (first, *waiting):
            asked.result()
    stats, scraped = agree(metered, "batched")
    assert stats["inference_count"] == 4
    assert {b["batch_size"]: b["compute_infer"]["count"] for b in stats["batch_stats"]} == {1: 1, 3: 1}
    # The batch's time counts for each of its requests; the buckets say so too.
    executed_s = stats["inference_stats"]["compute_infer"]["ns"] * 1e-9
    assert executed_s == pytest.approx(4 * SLOW_S, rel=0.25)
    waited_s = stats["inference_stats"]["queue"]["ns"] * 1e-9
    assert 0 < waited_s < 3 * SLOW_S * 1.25
    name = "fastserve_request_stage_seconds_bucket"
    below = max(b for b in bounds(scraped, name) if b < SLOW_S)
    assert scraped[f'{name}{{stage="execute",le="{below!r}"}}'] == 0
    assert scraped[f'{name}{{stage="execute",le="+Inf"}}'] == 4


def bounds(scraped: dict[str, float], name: str) -> list[float]:
    pattern = re.compile(name + r'{stage="execute",le="([\d.e-]+)"}')
    return sorted(float(m[1]) for n in scraped if (m := pattern.fullmatch(n)))


def test_buckets_double_from_a_microsecond_on(metered: Metered) -> None:
    found = bounds(metered.scrape("plain"), "fastserve_request_stage_seconds_bucket")
    assert found == [pytest.approx(1e-6 * 2**i) for i in range(25)]


# --- failures


def test_a_full_queue(metered: Metered) -> None:
    before = metered.rejected()
    with ThreadPoolExecutor(MAX_QUEUE + 1) as pool:
        running = [occupy(metered, pool, "full")]
        running += [pool.submit(infer, metered, "full") for _ in range(MAX_QUEUE)]
        metered.wait("full", lambda s: s["fastserve_requests_pending"] == MAX_QUEUE)
        for _ in range(3):
            with pytest.raises(InferenceServerException, match="Exceeds maximum queue size"):
                infer(metered, "full")
        rest = Rest(metered.server.http)
        assert rest.infer(Infer("full", (fp32("INPUT0", 1, WIDTH),)))[0] == 503
        rest.close()
        for asked in running:
            asked.result()
    stats, scraped = agree(metered, "full")
    assert stats["inference_stats"]["success"]["count"] == MAX_QUEUE + 1
    assert scraped['fastserve_requests_rejected_total{reason="queue_full"}'] == 4
    assert metered.rejected() == before, "counted with its model, and once"


def test_deadlines_and_queue_timeouts(metered: Metered) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = occupy(metered, pool, "late")
        with pytest.raises(InferenceServerException, match="Request timeout expired"):
            infer(metered, "late", timeout=20_000)
        # Refused at once, because the one that runs is known to take longer; else (its cost is not known well) the client's
        # own clock ends the call at about the same time as the server's: either says so.
        with pytest.raises(InferenceServerException, match=r"would miss its deadline|Deadline Exceeded"):
            infer(metered, "late", client_timeout=0.05)
        running.result()
    metered.wait("late", lambda s: s['nv_inference_request_failure{reason="BACKEND"}'] == 0)
    stats, scraped = agree(metered, "late")
    assert stats["inference_stats"]["success"]["count"] == 1
    assert stats["inference_stats"]["fail"]["count"] == 2
    assert scraped['fastserve_requests_rejected_total{reason="queue_timeout"}'] == 1
    gone = ("too_late", "deadline", "cancelled")  # grpcio resets the stream when its own clock was first
    assert sum(scraped[f'fastserve_requests_rejected_total{{reason="{r}"}}'] for r in gone) == 1


def test_a_backend_that_fails(metered: Metered) -> None:
    x = Tensor("x", "FP32", (2, 3), np.arange(6, dtype=np.float32).tobytes())
    dims = [Tensor("dims", "INT64", (2,), np.array(d, np.int64).tobytes()) for d in ((3, 2), (4, 2))]
    good, bad = (Infer("reshape", (x, d)) for d in dims)
    assert not isinstance(grpc_infer(metered.channel, good), Refused)
    failed = grpc_infer(metered.channel, bad)
    assert isinstance(failed, Refused)
    stats, scraped = agree(metered, "reshape")
    assert stats["inference_stats"]["success"]["count"] == 1
    assert stats["execution_count"] == 1
    assert scraped['nv_inference_request_failure{reason="BACKEND"}'] == 1
    assert encoded(metered, "reshape", 2) == 2, "an error is an answer too"


# --- clients that go away: their requests are counted all the same, once


def test_a_client_that_leaves_the_queue(metered: Metered) -> None:
    payload = message(Infer("reset", (fp32("INPUT0", 1, WIDTH),))).SerializeToString()
    with ThreadPoolExecutor(1) as pool:
        running = occupy(metered, pool, "reset")
        asked = metered.channel.unary_unary(INFER).future(payload)
        metered.wait("reset", lambda s: s["fastserve_requests_pending"] == 1)
        asked.cancel()
        metered.wait("reset", lambda s: s["fastserve_requests_pending"] == 0)
        running.result()
    stats, scraped = agree(metered, "reset")
    assert stats["inference_stats"]["success"]["count"] == 1
    assert scraped['nv_inference_request_failure{reason="CANCELED"}'] == 1
    assert encoded(metered, "reset", 1) == 1, "nobody was there to answer"


def test_a_connection_that_closes_while_its_request_waits(metered: Metered) -> None:
    request = Infer("closed", (fp32("INPUT0", 1, WIDTH),))
    with ThreadPoolExecutor(2) as pool:
        running = occupy(metered, pool, "closed")
        rest = Rest(metered.server.http)
        pool.submit(rest.infer, request)
        metered.wait("closed", lambda s: s["fastserve_requests_pending"] == 1)
        rest._socket.shutdown(2)
        metered.wait("closed", lambda s: s["fastserve_requests_pending"] == 0)
        running.result()
    stats, scraped = agree(metered, "closed")
    assert stats["inference_stats"]["success"]["count"] == 1
    assert scraped['fastserve_requests_rejected_total{reason="cancelled"}'] == 1


def test_a_client_that_leaves_a_running_request(metered: Metered) -> None:
    request = Infer("leaving", (fp32("INPUT0", 2, WIDTH),))
    asked = metered.channel.unary_unary(INFER).future(message(request).SerializeToString())
    metered.wait(
        "leaving",
        lambda s: s["fastserve_requests_in_flight"] == 1 and s["fastserve_requests_pending"] == 0,
    )
    asked.cancel()
    stats, _ = agree(metered, "leaving")
    assert stats["inference_stats"]["success"]["count"] == 1, "it ran"
    assert stats["inference_count"] == 2
    assert encoded(metered, "leaving", 0) == 0, "nobody was there to answer"


# --- refused by the front ends


@pytest.mark.parametrize(
    ("what", "change", "code"),
    [
        ("not_found", {"model": "nope"}, 5),
        ("invalid_argument", {"inputs": (fp32("INPUT0", 1, WIDTH + 1),)}, 3),
        ("invalid_argument", {"inputs": ()}, 3),
        ("resource_exhausted", {"inputs": (fp32("INPUT0", MAX_MESSAGE_BYTES // 4, 1),)}, 8),
    ],
)
def test_refusals_by_reason(metered: Metered, what: str, change: dict[str, Any], code: int) -> None:
    request = replace(Infer("plain", (fp32("INPUT0", 1, WIDTH),)), **change)
    before, stats = metered.rejected(), metered.statistics("plain")
    refused = grpc_infer(metered.channel, request)
    assert isinstance(refused, Refused)
    assert refused.code == code
    after = metered.rejected()
    assert {r: n - before[r] for r, n in after.items() if n != before[r]} == {what: 1}
    assert metered.statistics("plain") == stats, "a client's fault is no statistic of the model"


def test_a_body_at_the_limit_and_beyond_it(metered: Metered) -> None:
    for size, status in ((MAX_MESSAGE_BYTES, 400), (MAX_MESSAGE_BYTES + 1, 413)):
        before = metered.rejected()
        rest = Rest(metered.server.http)
        assert rest.ask("POST", "/v2/models/plain/infer", b" " * size)[0] == status
        rest.close()
        grown = {r: n - before[r] for r, n in metered.rejected().items() if n != before[r]}
        assert grown == {"invalid_argument" if status == 400 else "resource_exhausted": 1}


# --- the process


def test_connections_and_bytes(metered: Metered) -> None:
    name = "fastserve_connections"
    before = metered.server.scrape()
    rest = [Rest(metered.server.http) for _ in range(3)]
    for one in rest:
        assert one.ask("GET", "/v2/health/live")[0] == 200
    during = metered.server.scrape()
    assert (
        during[f'{name}_accepted_total{{protocol="http"}}']
        == before[f'{name}_accepted_total{{protocol="http"}}'] + 3
    )
    assert (
        during[f'{name}_accepted_total{{protocol="grpc"}}']
        == before[f'{name}_accepted_total{{protocol="grpc"}}']
    )
    assert during[f'{name}{{protocol="http"}}'] >= 3
    assert during[f'{name}{{protocol="grpc"}}'] >= 1
    for direction in ("received", "sent"):
        assert (
            during[f"fastserve_{direction}_bytes_total"]
            > before[f"fastserve_{direction}_bytes_total"] + 3 * 19
        )
    for one in rest:
        one.close()
    until = time.monotonic() + SETTLE_S
    while metered.server.scrape()[f'{name}{{protocol="http"}}'] > during[f'{name}{{protocol="http"}}'] - 3:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_the_process_says(metered: Metered) -> None:
    scraped = metered.server.scrape()
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert scraped[name] > 0, name
    assert scraped['nv_model_load_duration_secs{model="reshape",version="1"}'] > 0
    assert (
        scraped['fastserve_model_load_seconds{model="reshape",version="1"}']
        == scraped['nv_model_load_duration_secs{model="reshape",version="1"}']
    )
    assert scraped['fastserve_model_state{model="plain",version="1",state="READY"}'] == 1
    assert [n for n in scraped if n.startswith("fastserve_build_info")]
    assert 0 <= scraped["nv_cpu_utilization"] <= 1
    assert scraped['fastserve_loop_lag_seconds{loop="uvloop",quantile="1"}'] >= 0
    threads = [n for n in scraped if n.startswith('fastserve_loop_lag_seconds{loop="io-')]
    assert len(threads) in (0, 2)


def test_the_dashboard_asks_for_what_there_is(metered: Metered) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    queries = [t["expr"] for panel in panels for t in panel.get("targets", [])]
    queries += [v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    wanted = {n for query in queries for n in re.findall(r"\b(?:fastserve|nv|process)_\w+", query)}
    assert len(wanted) > 15
    emitted = {name.partition("{")[0] for name in metered.server.scrape()}
    assert wanted <= emitted
    stages = {s for query in queries for s in re.findall(r'stage="(\w+)"', query)}
    assert stages <= {*STAGES, "encode"}
    assert len({panel["id"] for panel in panels}) == len(panels)
