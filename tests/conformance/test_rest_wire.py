"""REST by hand: JSON and the binary extension (contracts §2.4), HTTP/1.1's corners, and what bodies must not be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from wire import Infer, Rest, fp32

INFER = "/v2/models/batch_fp32/infer"
GOOD = Infer("batch_fp32", (fp32("INPUT0", 2, 4),), id="good")


@pytest.fixture(scope="module")
def rest(server: Any) -> Iterator[Rest]:
    opened = Rest(server.http)
    yield opened
    opened.close()


def body(data: Any, datatype: str = "FP32", shape: Any = (1, 4), **extra: Any) -> bytes:
    tensor = {"name": "INPUT0", "datatype": datatype, "shape": list(shape), "data": data}
    return json.dumps({"inputs": [tensor], **extra}).encode()


def served_still(rest: Rest) -> bool:
    status, answer = rest.infer(GOOD)
    return bool(status == 200 and answer["id"] == "good" and rest.is_same_connection)


# --- JSON


@pytest.mark.parametrize(
    "data",
    [[1, 2.5, -3e2, 4], [[1, 2.5, -300, 4]], [[1.0, 25e-1, -300.0, 4]]],
    ids=["flat", "nested", "other spellings"],
)
def test_flat_and_nested_data(rest: Rest, data: Any) -> None:
    status, answer = rest.post(INFER, body(data, id="7"))
    assert status == 200
    assert answer == {
        "id": "7",
        "model_name": "batch_fp32",
        "model_version": "1",
        "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -300, 4]}],
    }


def test_id_only_if_given(rest: Rest) -> None:
    _, answer = rest.post(INFER, body([1, 2, 3, 4]))
    assert "id" not in answer


def test_fields_in_another_order_and_unknown_ones(rest: Rest) -> None:
    text = (
        b'{"inputs":[{"data":[1,2,3,4],"shape":[1,4],"unknown":{"a":[1]},"datatype":"FP32","name":"INPUT0"}],'
        b'"more":null,"id":"x"}'
    )
    status, answer = rest.post(INFER, text)
    assert (status, answer["id"]) == (200, "x")


def test_texts_with_escapes(rest: Rest) -> None:
    texts = ["", "ü✓\U0001f600", 'quote" \\ / \b\f\n\r\t', "\u0001"]
    status, answer = rest.post("/v2/models/batch_bytes/infer", body(texts, "BYTES"))
    assert status == 200
    assert answer["outputs"][0]["data"] == texts


@pytest.mark.parametrize("path", ["/v2/models/versions/infer", "/v2/models/versions/versions/3/infer"])
def test_versions_in_the_path(rest: Rest, path: str) -> None:
    status, answer = rest.post(path, body([1, 2, 3, 4], shape=(4,)))
    assert (status, answer["model_version"]) == (200, "3" if "versions/3" in path else "7")


def test_content_type_does_not_matter(rest: Rest) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl -d sends
    status, _ = rest.post(INFER, body([1, 2, 3, 4]), headers)
    assert status == 200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ""),
        (b"{", ""),
        (body([1, 2, 3, 4])[:-1], ""),
        (body([1, 2, 3, 4])[:40], ""),
        (body([1, 2, 3, 4]) + b"}", ""),
        (b"[]", ""),
        (b"null", ""),
        (b'{"inputs":{}}', "inputs"),
        (b'{"id":"x"}', "inputs"),
        (b'{"id":7,"inputs":[]}', "id"),
        (b'{"inputs":[{"datatype":"FP32","shape":[1,4],"data":[1,2,3,4]}]}', "name"),
        (b'{"inputs":[{"name":"INPUT0","shape":[1,4],"data":[1,2,3,4]}]}', "datatype"),
        (b'{"inputs":[{"name":"INPUT0","datatype":"FP32","data":[1,2,3,4]}]}', "shape"),
        (b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,4]}]}', "data"),
        (body([1, 2, 3, 4], shape=[1, 4.5]), "shape"),
        (body([1, 2, 3, 4], shape=[1, "4"]), "shape"),
        (body([1, 2, 3, 4], shape=[1, 10**30]), "shape"),
        (body([1, 2, 3]), "INPUT0"),
        (body([1, 2, 3, 4, 5]), "INPUT0"),
        (body([[1, 2], [3, 4]]), "INPUT0"),
        (body([1, 2, 3, "4"]), "INPUT0"),
        (body([1, 2, 3, None]), "INPUT0"),
        (body([1, 2, 3, True]), "INPUT0"),
        (body("text"), "INPUT0"),
        (body([1, 2, 3, float("nan")]), ""),
        (body([1, 2, 3, 4]).replace(b"4]", b"1e999]"), "INPUT0"),
        (b"\xef\xbb\xbf" + body([1, 2, 3, 4]), ""),
        (b'{"id":"\xff\xfe","inputs":[]}', ""),
        (b"[" * 100_000, ""),
        (b'{"a":' * 50_000, ""),
    ],
)
def test_bad_json(rest: Rest, text: bytes, words: str) -> None:
    status, answer = rest.post(INFER, text)
    assert status == 400, answer
    assert list(answer) == ["error"]
    assert words in answer["error"]
    assert len(answer["error"]) <= 1024
    assert served_still(rest)


@pytest.mark.parametrize(
    ("datatype", "data", "element"),
    [
        ("INT8", [1, 2, 128, 4], "[2]"),
        ("INT8", [1, 2, 3, 4.5], "[3]"),
        ("UINT8", [-1, 2, 3, 4], "[0]"),
        ("UINT64", [1 << 64, 0, 0, 0], "[0]"),
        ("INT64", [0, -(1 << 63) - 1, 0, 0], "[1]"),
        ("BOOL", [True, False, 2, True], "[2]"),
        ("BYTES", ["a", "b", 3, "d"], "[2]"),
    ],
)
def test_numbers_out_of_range_name_input_and_element(
    rest: Rest, datatype: str, data: Any, element: str
) -> None:
    status, answer = rest.post(f"/v2/models/batch_{datatype.lower()}/infer", body(data, datatype))
    assert status == 400
    assert 'inputs["INPUT0"].data' in answer["error"]
    assert element in answer["error"]
    assert served_still(rest)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_not_for_json(rest: Rest, datatype: str) -> None:
    status, answer = rest.post(f"/v2/models/batch_{datatype.lower()}/infer", body([1, 2, 3, 4], datatype))
    assert status == 400
    assert datatype in answer["error"]
    assert served_still(rest)


# --- the binary extension


def binary(header: dict[str, Any], data: bytes, length: str | None = None) -> tuple[bytes, dict[str, str]]:
    text = json.dumps(header).encode()
    return text + data, {"Inference-Header-Content-Length": str(len(text)) if length is None else length}


def tensor(size: int | None, **extra: Any) -> dict[str, Any]:
    parameters = {} if size is None else {"parameters": {"binary_data_size": size}}
    return {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], **parameters, **extra}


DATA = np.arange(4, dtype=np.float32).tobytes()


def test_binary_in_json_out(rest: Rest) -> None:
    status, answer = rest.post(INFER, *binary({"inputs": [tensor(16)]}, DATA))
    assert (status, answer["outputs"][0]["data"]) == (200, [0, 1, 2, 3])


@pytest.mark.parametrize(
    "asked",
    [
        {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}]},
        {"parameters": {"binary_data_output": True}},
    ],
    ids=["output", "request"],
)
def test_binary_out(rest: Rest, asked: dict[str, Any]) -> None:
    text = json.dumps({"inputs": [tensor(None, data=[0, 1, 2, 3])], **asked}).encode()
    status, headers, content = rest.ask("POST", INFER, text)
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    length = int(headers["inference-header-content-length"])
    (output,) = json.loads(content[:length])["outputs"]
    assert "data" not in output
    assert output["parameters"] == {"binary_data_size": 16}
    assert content[length:] == DATA


def test_an_outputs_own_wish_wins(rest: Rest) -> None:
    wish = {"name": "OUTPUT0", "parameters": {"binary_data": False}}
    text = {"inputs": [tensor(16)], "outputs": [wish], "parameters": {"binary_data_output": True}}
    status, answer = rest.post(INFER, *binary(text, DATA))
    assert (status, answer["outputs"][0]["data"]) == (200, [0, 1, 2, 3])


def test_a_raw_request_without_json(rest: Rest) -> None:
    x = np.arange(4, dtype=np.float32)
    status, headers, content = rest.ask("POST", INFER, x.tobytes(), {"Inference-Header-Content-Length": "0"})
    assert status == 200, content
    length = int(headers["inference-header-content-length"])
    assert json.loads(content[:length])["outputs"][0]["shape"] == [1, 4]
    assert content[length:] == x.tobytes()


def raw(rest: Rest, model: str, data: bytes) -> tuple[int, Any, bytes]:
    headers = {"Inference-Header-Content-Length": "0"}
    status, answered, content = rest.ask("POST", f"/v2/models/{model}/infer", data, headers)
    length = int(answered.get("inference-header-content-length", len(content)))
    return status, json.loads(content[:length]), content[length:]


@pytest.mark.parametrize("text", ["", "one text", "a" * 5000])
def test_a_raw_request_of_bytes_is_one_element(rest: Rest, text: str) -> None:
    status, answer, content = raw(rest, "any_bytes", text.encode())
    assert status == 200, answer
    assert answer["outputs"][0]["shape"] == [1]
    assert content == len(text).to_bytes(4, "little") + text.encode()


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("pair", b"\0" * 24, "has 2 inputs, want 1"),
        ("any_fp32", b"\0" * 16, "more than one dynamic dimension"),
        ("batch_bytes", b"text", "BYTES input of more than one element"),
        ("batch_fp32", b"\0" * 15, "input byte size mismatch"),
        ("batch_fp32", b"\0" * 17, "input byte size mismatch"),
        ("no_such_model", b"\0" * 16, "unknown model"),
    ],
)
def test_raw_requests_that_do_not_fit(rest: Rest, model: str, data: bytes, words: str) -> None:
    status, answer, _ = raw(rest, model, data)
    assert (status, words in answer["error"]) == (404 if "no_such" in model else 400, True), answer
    assert served_still(rest)


def json_out(rest: Rest, model: str, datatype: str, shape: list[int], data: bytes) -> tuple[int, str]:
    """Binary in, JSON out; the text of it."""
    given = {"name": "INPUT0", "datatype": datatype, "shape": shape}
    header = {"inputs": [{**given, "parameters": {"binary_data_size": len(data)}}]}
    status, _, content = rest.ask("POST", f"/v2/models/{model}/infer", *binary(header, data))
    return status, content.decode()


def test_what_is_no_number_is_written_as_a_word(rest: Rest) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, 1]], np.float32)
    status, text = json_out(rest, "batch_fp32", "FP32", [1, 4], x.tobytes())
    assert (status, '"data":[NaN,Infinity,-Infinity,1]' in text) == (200, True), text


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "1e999"])
def test_what_is_no_number_is_not_read(rest: Rest, word: str) -> None:
    text = body([1, 2, 3, 5]).replace(b"5]", word.encode() + b"]")
    status, answer = rest.post(INFER, text)
    assert status == 400, answer


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_cannot_be_answered_as_json(rest: Rest, datatype: str) -> None:
    status, text = json_out(rest, f"batch_{datatype.lower()}", datatype, [1, 4], bytes(8))
    assert (status, "ask for binary data" in text) == (400, True), text


def test_texts_that_are_no_utf8_cannot_be_answered_as_json(rest: Rest) -> None:
    data = b"\x02\0\0\0\xff\xfe"
    status, text = json_out(rest, "any_bytes", "BYTES", [1], data)
    assert (status, ".data[0]: not UTF-8" in text) == (400, True), text
    header = {
        "inputs": [
            {"name": "INPUT0", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}}
        ],
        "parameters": {"binary_data_output": True},
    }
    status, _, content = rest.ask("POST", "/v2/models/any_bytes/infer", *binary(header, data))
    assert (status, content[-6:]) == (200, data)


def test_an_empty_binary_output_is_plain_json(rest: Rest) -> None:
    """The header and octet-stream come only with bytes behind the JSON."""
    header = {
        "inputs": [
            {"name": "INPUT0", "datatype": "FP32", "shape": [0, 4], "parameters": {"binary_data_size": 0}}
        ],
        "parameters": {"binary_data_output": True},
    }
    status, answered, content = rest.ask("POST", "/v2/models/any_fp32/infer", *binary(header, b""))
    assert status == 200, content
    assert answered["content-type"] == "application/json"
    assert "inference-header-content-length" not in answered
    assert json.loads(content)["outputs"][0]["parameters"] == {"binary_data_size": 0}


@pytest.mark.parametrize(
    ("header", "data", "length", "words"),
    [
        ({"inputs": [tensor(16)]}, DATA, "100000", "inference header size should be in range"),
        ({"inputs": [tensor(16)]}, DATA, "-1", "inference header size should be in range"),
        ({"inputs": [tensor(16)]}, DATA, "12x", "nference"),
        ({"inputs": [tensor(16)]}, DATA, "10", ""),
        (
            {"inputs": [tensor(16)]},
            DATA[:-1],
            None,
            "unexpected size for input 'INPUT0', expecting 16 additional bytes",
        ),
        (
            {"inputs": [tensor(16)]},
            DATA + b"x",
            None,
            "unexpected additional input data for model 'batch_fp32'",
        ),
        ({"inputs": [tensor(12)]}, DATA[:12], None, "input byte size mismatch for input 'INPUT0'"),
        ({"inputs": [tensor(-16)]}, DATA, None, "binary_data_size"),
        ({"inputs": [tensor(1 << 70)]}, DATA, None, "binary_data_size"),
        ({"inputs": [tensor(16, data=[1, 2, 3, 4])]}, DATA, None, "INPUT0"),
        ({"inputs": [tensor(None)]}, b"", None, "data"),
        ({"inputs": [tensor(None, parameters={"binary_data_size": "16"})]}, DATA, None, "binary_data_size"),
    ],
)
def test_bad_binary(rest: Rest, header: Any, data: bytes, length: str | None, words: str) -> None:
    status, answer = rest.post(INFER, *binary(header, data, length))
    assert status == 400, answer
    assert words in answer["error"]
    assert served_still(rest)


def test_binary_size_without_the_header(rest: Rest) -> None:
    text, _ = binary({"inputs": [tensor(16)]}, b"")
    status, answer = rest.post(INFER, text)
    assert status == 400
    assert "INPUT0" in answer["error"]
    assert served_still(rest)


def test_a_large_json_body(rest: Rest) -> None:
    x = [float(i % 977) for i in range(100_000)]
    status, answer = rest.post("/v2/models/any_fp32/infer", body(x, shape=(100, 1000)))
    assert status == 200
    assert answer["outputs"][0]["data"] == x


# --- paths and methods


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_wrong_method(rest: Rest, method: str) -> None:
    status, headers, content = rest.ask(method, INFER)
    assert (status, headers["allow"]) == (405, "POST")
    assert list(json.loads(content)) == ["error"]
    assert served_still(rest)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v3"),
        ("GET", "/v2/nothing"),
        ("POST", "/v2/models/batch_fp32/infer/"),
        ("POST", "/infer"),
    ],
)
def test_unknown_paths(rest: Rest, method: str, path: str) -> None:
    status, _, content = rest.ask(method, path, b"{}" if method == "POST" else None)
    assert (status, json.loads(content)) == (404, {"error": "Not Found"})
    assert served_still(rest)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%2fb", "a%00b", "%ff", "%zz", "a%0d%0ab", "x" * 300])
@pytest.mark.parametrize("route", ["", "/infer"])
def test_names_in_paths(rest: Rest, name: str, route: str) -> None:
    method = "POST" if route else "GET"
    status, _, content = rest.ask(method, f"/v2/models/{name}{route}", body([1, 2, 3, 4]) if route else None)
    assert status in (400, 404), content
    assert list(json.loads(content)) == ["error"]
    assert len(content) <= 1024
    assert served_still(rest)


def test_head(rest: Rest) -> None:
    status, _, content = rest.ask("HEAD", "/v2/health/ready")
    assert (status, content) == (200, b"")
    assert served_still(rest)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v2/health/live", {"live": True}),
        ("GET", "/v2/health/ready", {"ready": True}),
        ("GET", "/v2/models/mlp/ready", {"name": "mlp", "ready": True}),
    ],
)
def test_health_bodies(rest: Rest, method: str, path: str, expected: Any) -> None:
    status, headers, content = rest.ask(method, path)
    assert (status, json.loads(content)) == (200, expected)
    assert headers["content-type"] == "application/json"


def test_not_ready_models_are_400(rest: Rest) -> None:
    for model in ("broken", "nothing", "mlp/versions/9"):
        status, _, content = rest.ask("GET", f"/v2/models/{model}/ready")
        assert (status, json.loads(content)) == (400, {"error": "Model version not ready"})
