"""What works, with the real tritonclient in its four forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model_repository import DATATYPES, MAX_BATCH_ROWS, WIDTH, mlp_answer, values

import fastserve

# --- server and model state


def test_server_health(client: Any) -> None:
    assert client.call("is_server_live") is True
    assert client.call("is_server_ready") is True


@pytest.mark.parametrize(
    ("model", "version", "ready"),
    [
        ("mlp", "", True),
        ("mlp", "1", True),
        ("mlp", "2", False),
        ("versions", "3", True),
        ("broken", "", False),
        ("misspelt", "", False),
        ("no_such_model", "", False),
    ],
)
def test_model_ready_answers_and_does_not_raise(client: Any, model: str, version: str, ready: bool) -> None:
    assert client.call("is_model_ready", model, version) is ready


def test_server_metadata(client: Any) -> None:
    metadata = client.json("get_server_metadata")
    assert metadata["name"] == "fastserve"
    assert metadata["version"] == fastserve.__version__
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(metadata["extensions"])


def test_model_metadata(client: Any) -> None:
    metadata = client.json("get_model_metadata", "mlp")
    assert (metadata["name"], metadata["versions"]) == ("mlp", ["1"])
    assert metadata["platform"]
    shapes = {
        t["name"]: (t["datatype"], [int(d) for d in t["shape"]])
        for t in metadata["inputs"] + metadata["outputs"]
    }
    assert shapes == {"x": ("FP32", [-1, 16]), "y": ("FP32", [-1, 5])}  # the batch dimension is in it


def test_model_metadata_of_versions(client: Any) -> None:
    assert client.json("get_model_metadata", "versions")["versions"] == ["1", "3", "7"]
    assert client.json("get_model_metadata", "versions", "3")["versions"] == ["3"]


def test_model_config(client: Any) -> None:
    config = client.json("get_model_config", "mlp")
    config = config.get("config", config)  # gRPC wraps it in a response message
    assert config["name"] == "mlp"
    assert int(config["max_batch_size"]) > 0
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert [int(d) for d in config["input"][0]["dims"]] == [16]  # the batch dimension is not in it
    assert config["backend"] == "openvino"


def test_repository_index(client: Any) -> None:
    index = client.json("get_model_repository_index")
    index = index.get("models", []) if isinstance(index, dict) else index
    states = {(m["name"], m.get("version", "")): m["state"] for m in index}
    assert states["mlp", "1"] == "READY"
    assert states["versions", "7"] == "READY"
    assert states["broken", "1"] == "UNAVAILABLE"
    reasons = {m["name"]: m.get("reason", "") for m in index}
    assert "max_batchsize" in reasons["misspelt"]
    assert "config.pbtxt:2" in reasons["misspelt"]
    assert reasons["broken"]


def test_statistics_count(client: Any) -> None:
    def read() -> dict[str, Any]:
        answer = client.json("get_inference_statistics", "batch_fp32")
        (stats,) = answer["model_stats"]
        assert (stats["name"], stats["version"]) == ("batch_fp32", "1")
        return dict(stats)

    def count(stats: dict[str, Any], *path: str) -> int:
        value: Any = stats
        for key in path:
            value = value.get(key, {})
        return int(value or 0)

    x = values("FP32", (3, WIDTH))
    client.infer("batch_fp32", {"INPUT0": ("FP32", x)})
    before = read()
    client.infer("batch_fp32", {"INPUT0": ("FP32", x)})
    after = read()
    grown = {
        path: count(after, *path) - count(before, *path)
        for path in (
            ("inference_count",),
            ("execution_count",),
            ("inference_stats", "success", "count"),
            ("inference_stats", "queue", "count"),
            ("inference_stats", "fail", "count"),
        )
    }
    assert list(grown.values()) == [3, 1, 1, 1, 0], grown
    assert count(after, "inference_stats", "success", "ns") > count(
        before, "inference_stats", "success", "ns"
    )
    assert count(after, "last_inference") >= count(before, "last_inference") > 1_600_000_000_000
    assert any(int(batch["batch_size"]) == 3 for batch in after["batch_stats"])


def test_statistics_of_all_models(client: Any) -> None:
    answer = client.json("get_inference_statistics")
    names = {stats["name"] for stats in answer["model_stats"]}
    assert {"mlp", "batch_fp32", "versions"} <= names
    assert "broken" not in names


# --- inference


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_comes_back_as_it_went(client: Any, datatype: str) -> None:
    x = values(datatype, (2, WIDTH))
    result = client.infer(f"batch_{datatype.lower()}", {"INPUT0": (datatype, x)})
    y = result.as_numpy("OUTPUT0")
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert np.array_equal(y, x)


@pytest.mark.parametrize("rows", [1, 2, 5, MAX_BATCH_ROWS])
def test_batch_sizes(client: Any, rows: int) -> None:
    x = values("FP32", (rows, WIDTH), seed=rows)
    result = client.infer("batch_fp32", {"INPUT0": ("FP32", x)})
    assert np.array_equal(result.as_numpy("OUTPUT0"), x)


def test_a_real_model(client: Any) -> None:
    for rows in (1, 3, 4):
        x = np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)
        result = client.infer("mlp", {"x": ("FP32", x)})
        np.testing.assert_allclose(result.as_numpy("y"), mlp_answer(x), rtol=2e-2, atol=2e-2)


def test_a_model_that_does_not_batch(client: Any) -> None:
    x = values("FP32", (2, 3))
    assert np.array_equal(client.infer("plain_fp32", {"INPUT0": ("FP32", x)}).as_numpy("OUTPUT0"), x)


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (0, 5), (512, 512)])
def test_dynamic_shapes(client: Any, shape: tuple[int, ...]) -> None:
    x = values("FP32", shape) if 0 not in shape else np.zeros(shape, np.float32)
    result = client.infer("any_fp32", {"INPUT0": ("FP32", x)})
    y = result.as_numpy("OUTPUT0")
    assert y is not None or 0 in shape
    if y is not None:
        assert y.shape == shape
        assert np.array_equal(y, x)


def test_two_inputs_and_a_choice_of_outputs(client: Any) -> None:
    a, b = values("FP32", (2, WIDTH)), values("INT32", (2, 2))
    inputs = {"INPUT1": ("INT32", b), "INPUT0": ("FP32", a)}  # not in the model's order
    both = client.infer("pair", inputs)
    assert np.array_equal(both.as_numpy("OUTPUT0"), a)
    assert np.array_equal(both.as_numpy("OUTPUT1"), b)
    one = client.infer("pair", inputs, outputs=[client.module.InferRequestedOutput("OUTPUT1")])
    assert one.as_numpy("OUTPUT0") is None
    assert np.array_equal(one.as_numpy("OUTPUT1"), b)
    order = [client.module.InferRequestedOutput(name) for name in ("OUTPUT1", "OUTPUT0")]
    swapped = client.infer("pair", inputs, outputs=order)
    assert np.array_equal(swapped.as_numpy("OUTPUT0"), a)
    assert np.array_equal(swapped.as_numpy("OUTPUT1"), b)


def test_id_name_and_version_come_back(client: Any) -> None:
    x = values("FP32", (WIDTH,))
    for asked, used in (("", "7"), ("1", "1"), ("3", "3")):
        result = client.infer("versions", {"INPUT0": ("FP32", x)}, model_version=asked, request_id="id-42")
        response = result.get_response()
        fields = (
            {name: getattr(response, name) for name in ("id", "model_name", "model_version")}
            if client.is_grpc
            else response
        )
        assert (fields["id"], fields["model_name"], fields["model_version"]) == ("id-42", "versions", used)


def test_parameters_and_priority_are_taken(client: Any) -> None:
    x = values("FP32", (1, WIDTH))
    extras: dict[str, Any] = {"priority": 3, "parameters": {"key": "value", "number": 7, "flag": True}}
    result = client.infer("batch_fp32", {"INPUT0": ("FP32", x)}, **extras)
    assert np.array_equal(result.as_numpy("OUTPUT0"), x)


def test_many_requests_on_one_client(client: Any) -> None:
    for number in range(50):
        x = np.full((1, WIDTH), number, np.float32)
        result = client.infer("batch_fp32", {"INPUT0": ("FP32", x)}, request_id=str(number))
        assert np.array_equal(result.as_numpy("OUTPUT0"), x)


# --- JSON, which is tritonclient.http's alone


over_rest = pytest.mark.parametrize("client", ["http", "http.aio"], indirect=True)


@over_rest
@pytest.mark.parametrize("datatype", [d for d in DATATYPES if d not in ("FP16", "BF16")])
def test_every_datatype_as_json(client: Any, datatype: str) -> None:
    x = values(datatype, (2, WIDTH))
    asked = client.module.InferRequestedOutput("OUTPUT0", binary_data=False)
    tensor = client.input("INPUT0", datatype, x, binary_data=False)
    result = client.call("infer", f"batch_{datatype.lower()}", [tensor], outputs=[asked])
    output = result.get_response()["outputs"][0]
    assert "binary_data_size" not in output.get("parameters", {})
    expected = [v.decode() for v in x.ravel()] if datatype == "BYTES" else x.ravel().tolist()
    assert output["data"] == expected
    assert output["shape"] == [2, WIDTH]


@over_rest
@pytest.mark.parametrize(("binary_in", "binary_out"), [(True, False), (False, True)])
def test_json_and_binary_mix(client: Any, binary_in: bool, binary_out: bool) -> None:
    a, b = values("FP32", (1, WIDTH)), values("INT32", (1, 2))
    inputs = [
        client.input("INPUT0", "FP32", a, binary_data=binary_in),
        client.input("INPUT1", "INT32", b, binary_data=not binary_in),
    ]
    outputs = [
        client.module.InferRequestedOutput("OUTPUT0", binary_data=binary_out),
        client.module.InferRequestedOutput("OUTPUT1", binary_data=not binary_out),
    ]
    result = client.call("infer", "pair", inputs, outputs=outputs)
    assert np.array_equal(result.as_numpy("OUTPUT0"), a)
    assert np.array_equal(result.as_numpy("OUTPUT1"), b)
