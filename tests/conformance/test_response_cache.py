"""The response cache, requests that are larger than a batch, and warm-up data, as the real clients see them."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_repository import identity, mlp_answer, write_mlp
from running_server import RunningServer, records

WIDTH = 4
ROWS = 4  # of a batch
REQUEST_ROWS = 64
CACHE = "response_cache { enable: true }"
SPLIT = f'parameters {{ key: "max_request_batch_size" value {{ string_value: "{REQUEST_ROWS}" }} }}'


def write_models(models: Path) -> None:
    tensors = [("FP32", [WIDTH]), ("BYTES", [2])]
    identity(models, "cached", tensors, max_batch=ROWS, extra=CACHE)
    identity(models, "plain", tensors, max_batch=ROWS)
    identity(models, "split", tensors, max_batch=ROWS, extra=SPLIT)
    identity(models, "both", tensors, max_batch=ROWS, extra=f"{SPLIT}\n{CACHE}")
    identity(models, "late", [("FP32", [WIDTH])], max_batch=1, delay_s=0.2, extra=SPLIT)
    folder = models / "mlp" / "1"
    folder.mkdir(parents=True)
    write_mlp(folder / "model.onnx")
    (models / "mlp" / "config.pbtxt").write_text(f"max_batch_size: 8\n{SPLIT.replace('64', '100')}\n")


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def own_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("cached")
    write_models(folder / "models")
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    flags = ("--cache-config", "local,size=1048576", "--io-threads", threads)
    with RunningServer(folder / "models", folder, *flags) as running:
        yield running
        running.signal()
        assert running.wait() == 0, running.log()


@pytest.fixture(params=["grpc", "http"])
def own(request: pytest.FixtureRequest, own_server: RunningServer, client_class: Any) -> Iterator[Any]:
    client = client_class(request.param, own_server)
    yield client
    client.close()


def numbers_and_words(seed: int, rows: int) -> dict[str, tuple[str, Any]]:
    rng = np.random.default_rng(seed)
    words = [[b"w" * int(n) for n in row] for row in rng.integers(0, 9, (rows, 2))]
    return {
        "INPUT0": ("FP32", rng.standard_normal((rows, WIDTH)).astype(np.float32)),
        "INPUT1": ("BYTES", np.array(words, dtype=np.object_)),
    }


def check(result: Any, inputs: dict[str, tuple[str, Any]]) -> None:
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), inputs["INPUT0"][1])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), inputs["INPUT1"][1])


def statistics(server: RunningServer, client: Any, model: str) -> dict[str, int]:
    """Over both protocols, which agree."""
    answer = client.json("get_inference_statistics", model)["model_stats"][0]
    with urllib.request.urlopen(f"http://{server.http}/v2/models/{model}/stats", timeout=5) as r:
        by_rest = json.load(r)["model_stats"][0]
    for stage in ("cache_hit", "cache_miss", "success"):
        for part in ("count", "ns"):
            other = answer["inference_stats"].get(stage, {}).get(part, 0)
            assert int(other) == by_rest["inference_stats"][stage][part]
    found = {stage: total["count"] for stage, total in by_rest["inference_stats"].items()}
    return {**found, "rows": by_rest["inference_count"], "batches": by_rest["execution_count"]}


def gained(before: dict[str, int], after: dict[str, int], *names: str) -> tuple[int, ...]:
    return tuple(after[name] - before[name] for name in names)


def test_a_repeated_request_is_a_hit(own_server: RunningServer, own: Any) -> None:
    inputs = numbers_and_words(hash(own.kind) % 1000 + id(own_server) % 1000, 3)
    before = statistics(own_server, own, "cached")
    for _ in range(4):
        check(own.infer("cached", inputs, request_id="7"), inputs)
    after = statistics(own_server, own, "cached")
    assert gained(before, after, "success", "queue", "cache_hit", "cache_miss") == (4, 4, 3, 1)
    assert gained(before, after, "compute_infer", "rows", "batches") == (1, 3, 1)


def test_a_hit_answers_other_outputs_and_encodings_rightly(own_server: RunningServer, own: Any) -> None:
    inputs = numbers_and_words(11, 2)
    check(own.infer("cached", inputs), inputs)
    asked = own.module.InferRequestedOutput("OUTPUT0", class_count=2)
    for _ in range(2):
        only = own.infer("cached", inputs, outputs=[asked])
        classes = only.as_numpy("OUTPUT0")
        assert classes.shape == (2, 2)
        best = int(np.argmax(inputs["INPUT0"][1][0]))
        assert classes[0][0].decode().split(":")[1] == str(best)
        assert only.as_numpy("OUTPUT1") is None
    check(own.infer("cached", inputs), inputs)


def test_metrics_agree_with_the_statistics(own_server: RunningServer, own: Any) -> None:
    inputs = numbers_and_words(12, 1)
    for _ in range(3):
        own.infer("cached", inputs)
    stats, scraped = statistics(own_server, own, "cached"), own_server.scrape()
    labels = '{model="cached",version="1"}'
    assert scraped[f"nv_cache_num_hits_per_model{labels}"] == stats["cache_hit"] > 0
    assert scraped[f"nv_cache_num_misses_per_model{labels}"] == stats["cache_miss"] > 0
    assert f"nv_cache_hit_duration_per_model{labels}" in scraped
    assert f"nv_cache_miss_duration_per_model{labels}" in scraped
    assert scraped[f"nv_inference_request_success{labels}"] == stats["success"]
    assert scraped[f"nv_inference_exec_count{labels}"] == stats["batches"]
    assert scraped["fastserve_response_cache_capacity_bytes"] == 1048576
    assert 0 < scraped["fastserve_response_cache_bytes"] <= 1048576
    assert scraped["fastserve_response_cache_entries"] > 0


def test_other_models_are_not_cached(own_server: RunningServer, own: Any) -> None:
    inputs = numbers_and_words(13, 1)
    for _ in range(2):
        check(own.infer("plain", inputs), inputs)
    stats = statistics(own_server, own, "plain")
    assert stats["cache_hit"] == stats["cache_miss"] == 0


@pytest.mark.parametrize("rows", [1, ROWS, ROWS + 1, 2 * ROWS, REQUEST_ROWS - 1, REQUEST_ROWS])
def test_a_large_request_is_answered_as_one(own_server: RunningServer, own: Any, rows: int) -> None:
    inputs = numbers_and_words(rows, rows)
    before = statistics(own_server, own, "split")
    check(own.infer("split", inputs), inputs)
    after = statistics(own_server, own, "split")
    assert gained(before, after, "success", "queue", "compute_infer", "rows") == (1, 1, 1, rows)
    assert after["batches"] - before["batches"] >= -(-rows // ROWS)


def test_a_request_beyond_the_limit_is_refused(own: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=f"batch-size must be <= {REQUEST_ROWS} for 'split'"):
        own.infer("split", numbers_and_words(1, REQUEST_ROWS + 1))
    with pytest.raises(InferenceServerException, match=f"batch-size must be <= {ROWS} for 'plain'"):
        own.infer("plain", numbers_and_words(1, ROWS + 1))


def test_a_large_request_is_cached_as_one(own_server: RunningServer, own: Any) -> None:
    inputs = numbers_and_words(21, 3 * ROWS)
    check(own.infer("both", inputs), inputs)
    before = statistics(own_server, own, "both")
    check(own.infer("both", inputs), inputs)
    after = statistics(own_server, own, "both")
    assert gained(before, after, "cache_hit", "cache_miss", "success", "batches") == (1, 0, 1, 0)


def test_large_requests_to_openvino_equal_their_parts(own: Any) -> None:
    x = np.random.default_rng(3).standard_normal((50, 16)).astype(np.float32)
    whole = own.infer("mlp", {"x": ("FP32", x)}).as_numpy("y")
    parts = [own.infer("mlp", {"x": ("FP32", x[i : i + 8])}).as_numpy("y") for i in range(0, 50, 8)]
    np.testing.assert_allclose(whole, np.concatenate(parts), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(whole, mlp_answer(x), rtol=2e-2, atol=0.5)  # BF16 where the CPU has it


def test_the_deadline_of_a_large_request(own: Any) -> None:
    from tritonclient.utils import InferenceServerException

    if not own.is_grpc:
        pytest.skip("a deadline of the protocol is gRPC's")
    x = np.zeros((REQUEST_ROWS, WIDTH), np.float32)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        own.infer("late", {"INPUT0": ("FP32", x)}, client_timeout=0.5)
    small = None
    until = time.monotonic() + 5  # by then the 14 s of the rest are still not done, if they are run
    while small is None and time.monotonic() < until:
        with contextlib.suppress(
            InferenceServerException
        ):  # refused: the server has not noticed yet that the client gave up
            small = own.infer("late", {"INPUT0": ("FP32", x[:1])}, client_timeout=5)
    assert small is not None
    assert small.as_numpy("OUTPUT0").shape == (1, WIDTH)


# --- servers of their own ---------------------------------------------------------------------------------------------------


def test_a_model_that_asks_for_a_cache_that_is_off(tmp_path: Path, client_class: Any) -> None:
    identity(tmp_path / "models", "cached", [("FP32", [WIDTH])], max_batch=ROWS, extra=CACHE)
    with RunningServer(tmp_path / "models", tmp_path) as server:
        client = client_class("grpc", server)
        x = {"INPUT0": ("FP32", np.ones((1, WIDTH), np.float32))}
        for _ in range(2):
            client.infer("cached", x)
        stats = statistics(server, client, "cached")
        assert (stats["batches"], stats["cache_hit"], stats["cache_miss"]) == (2, 0, 0)
        assert not any("_cache_" in name for name in server.scrape())
        client.close()
        warnings = [r for r in records(server.log()) if r["level"] == "warning"]
        assert sum("asks for the response cache" in json.dumps(r) for r in warnings) == 1


WARM = """
model_warmup {{
  name: "cat" batch_size: 2 count: 3
  inputs {{ key: "INPUT0" value {{ data_type: TYPE_FP32 dims: {dims} {fill} }} }}
}}
"""


@pytest.mark.parametrize("fill", ["zero_data: true", "random_data: true", 'input_data_file: "cat.bin"'])
def test_warm_up_data_run_before_ready(tmp_path: Path, client_class: Any, fill: str) -> None:
    models = tmp_path / "models"
    identity(models, "warm", [("FP32", [WIDTH])], max_batch=ROWS, extra=WARM.format(dims=WIDTH, fill=fill))
    (models / "warm" / "warmup").mkdir()
    (models / "warm" / "warmup" / "cat.bin").write_bytes(np.arange(WIDTH, dtype=np.float32).tobytes())
    with RunningServer(models, tmp_path) as server:
        client = client_class("grpc", server)
        assert client.call("is_model_ready", "warm")
        assert statistics(server, client, "warm")["batches"] == 0, "a warm-up is nobody's request"
        client.close()


def test_a_wrong_warm_up_fails_the_load(tmp_path: Path, client_class: Any) -> None:
    models = tmp_path / "models"
    extra = WARM.format(dims=WIDTH + 1, fill="zero_data: true")
    identity(models, "cold", [("FP32", [WIDTH])], max_batch=ROWS, extra=extra)
    identity(models, "fine", [("FP32", [WIDTH])])
    with RunningServer(
        models, tmp_path, "--model-control-mode", "explicit", "--load-model", "fine"
    ) as server:
        from tritonclient.utils import InferenceServerException

        client = client_class("grpc", server)
        with pytest.raises(InferenceServerException) as caught:
            client.call("load_model", "cold")
        assert "StatusCode.INVALID_ARGUMENT" in str(caught.value.status())
        assert 'model_warmup.inputs["INPUT0"].dims: got [5]' in caught.value.message()
        client.close()
