"""The classification extension, by the real tritonclient over gRPC and REST, and what is wrong with it by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from model_repository import DATATYPES, LABELS, WIDTH, mlp_answer, values
from tritonclient.grpc import service_pb2
from wire import Infer, Refused, Rest, fp32, grpc_infer, message


@pytest.fixture(scope="module")
def rest(server: Any) -> Iterator[Rest]:
    opened = Rest(server.http)
    yield opened
    opened.close()


def classes(client: Any, model: str, x: Any, datatype: str, count: int, **kwargs: Any) -> Any:
    output = client.module.InferRequestedOutput("OUTPUT0", class_count=count, **kwargs)
    result = client.infer(model, {"INPUT0": (datatype, x)}, outputs=[output])
    return result.as_numpy("OUTPUT0")


def top(row: Any, count: int, text: Any) -> list[bytes]:
    order = sorted(range(len(row)), key=lambda i: -row[i])[:count]
    return [f"{text(row[i])}:{i}".encode() for i in order]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 1000])
def test_top_classes_of_floats(client: Any, count: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32)
    found = classes(client, "batch_fp32", x, "FP32", count)
    assert found.shape == (2, min(count, WIDTH))
    assert found.dtype == np.object_
    for row, texts in zip(x, found, strict=True):
        assert list(texts) == top(row, count, lambda v: f"{v:f}")


@pytest.mark.parametrize(
    "datatype", sorted(set(DATATYPES) - {"BYTES", "BOOL", "FP16", "BF16", "FP32", "FP64"})
)
def test_integers_are_written_as_integers(client: Any, datatype: str) -> None:
    x = values(datatype, (1, WIDTH))
    found = classes(client, f"batch_{datatype.lower()}", x, datatype, WIDTH)
    assert list(found[0]) == top([int(v) for v in x[0]], WIDTH, str)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP64"])
def test_other_floats(client: Any, datatype: str) -> None:
    x = values(datatype, (1, WIDTH))
    found = classes(client, f"batch_{datatype.lower()}", x, datatype, 2)
    assert list(found[0]) == top([float(v) for v in x[0]], 2, lambda v: f"{v:f}")


def test_labels_and_classes_without_one(client: Any) -> None:
    x = np.arange(len(LABELS) + 2, dtype=np.float32)[None]
    (found,) = classes(client, "labelled", x, "FP32", 9)
    assert [t.decode() for t in found] == [
        "5.000000:5",
        "4.000000:4",
        "3.000000:3:grüße",
        "2.000000:2",
        "1.000000:1:dog",
        "0.000000:0:cat",
    ]


def test_a_model_without_batches_has_one_dimension(client: Any) -> None:
    x = np.array([[1, 5, 2], [9, 0, 3]], np.float32)
    assert list(classes(client, "plain_fp32", x, "FP32", 2)) == [b"9.000000:3", b"5.000000:1"]


def test_a_real_model(client: Any) -> None:
    x = np.random.default_rng(2).standard_normal((3, 16)).astype(np.float32)
    output = client.module.InferRequestedOutput("y", class_count=1)
    found = client.infer("mlp", {"x": ("FP32", x)}, outputs=[output]).as_numpy("y")
    best = [int(text.decode().split(":")[1]) for text in found[:, 0]]
    assert best == list(mlp_answer(x).argmax(1))


def test_rest_as_json_and_as_binary(rest: Rest) -> None:
    inputs = [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, float(2), 2, 0.5]}]
    for binary in (False, True):
        wanted = {"name": "OUTPUT0", "parameters": {"classification": 2, "binary_data": binary}}
        text = json.dumps({"inputs": inputs, "outputs": [wanted]}).encode()
        status, headers, content = rest.ask("POST", "/v2/models/batch_fp32/infer", text)
        assert status == 200, content
        length = int(headers.get("inference-header-content-length", len(content)))
        (output,) = json.loads(content[:length])["outputs"]
        assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
        if binary:
            assert content[length:] == b"\x0a\0\0\x002.000000:1\x0a\0\0\x002.000000:2"
        else:
            assert output["data"] == ["2.000000:1", "2.000000:2"]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, None, 1 << 40])
def test_wrong_counts_over_rest(rest: Rest, wrong: Any) -> None:
    inputs = [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]
    wanted = {"name": "OUTPUT0", "parameters": {"classification": wrong}}
    status, answer = rest.post(
        "/v2/models/batch_fp32/infer", json.dumps({"inputs": inputs, "outputs": [wanted]}).encode()
    )
    assert status == 400, answer
    assert 'outputs["OUTPUT0"].parameters["classification"]: got' in answer["error"]


def asked(model: str, **parameter: Any) -> Any:
    request = message(Infer(model, (fp32("INPUT0", 1, 4),)))
    output = request.outputs.add(name="OUTPUT0")
    output.parameters["classification"].CopyFrom(service_pb2.InferParameter(**parameter))
    return request


@pytest.mark.parametrize(
    "parameter", [{"string_param": "2"}, {"bool_param": True}, {"double_param": 2.0}, {"uint64_param": 2}]
)
def test_wrong_kinds_over_grpc(channel: Any, parameter: Any) -> None:
    answer = grpc_infer(channel, asked("batch_fp32", **parameter))
    words = "invalid value type for 'classification' parameter, expected int64_param"
    assert isinstance(answer, Refused)
    assert (answer.code, words in answer.message) == (3, True), answer


@pytest.mark.parametrize("count", [0, -1])
def test_wrong_counts_over_grpc(channel: Any, count: int) -> None:
    answer = grpc_infer(channel, asked("batch_fp32", int64_param=count))
    assert isinstance(answer, Refused)
    assert answer.code == 3
    assert f'outputs[0].parameters["classification"]: got {count}, want 1 or more' in answer.message


def test_texts_have_no_classes(client: Any) -> None:
    with pytest.raises(client.module.InferenceServerException if client.is_grpc else Exception) as caught:
        classes(client, "batch_bytes", values("BYTES", (1, WIDTH)), "BYTES", 1)
    assert "got an output of datatype BYTES, want numbers" in str(caught.value)


def test_a_missing_label_file_is_why_the_model_is_refused(client: Any) -> None:
    index = client.json("get_model_repository_index")
    index = index.get("models", []) if isinstance(index, dict) else index
    (reason,) = [m["reason"] for m in index if m["name"] == "no_labels"]
    assert "config.pbtxt:" in reason
    assert "output.label_filename: 'labels.txt': does not exist" in reason


def test_the_extension_is_announced(client: Any) -> None:
    assert "classification" in client.json("get_server_metadata")["extensions"]
