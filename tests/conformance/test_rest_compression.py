"""Content-Encoding and Accept-Encoding over REST: by tritonclient, by curl, by hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from wire import Rest

MAX_BYTES = 4 << 20  # the server's, conftest.py
FROM_BYTES = 1024  # answers from this size on are compressed
INFER = "/v2/models/any_fp32/infer"
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
CODINGS = sorted(PACK)


@pytest.fixture(scope="module")
def rest(server: Any) -> Iterator[Rest]:
    opened = Rest(server.http)
    yield opened
    opened.close()


def body(rows: int = 2, columns: int = 3) -> bytes:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [rows, columns], "data": [1] * rows * columns}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize("request_coding", [None, *CODINGS])
@pytest.mark.parametrize("response_coding", [None, *CODINGS])
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient(server: Any, request_coding: Any, response_coding: Any, binary: bool) -> None:
    x = np.tile(np.arange(100, dtype=np.float32), (20, 1))
    tensor = triton.InferInput("INPUT0", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    output = triton.InferRequestedOutput("OUTPUT0", binary_data=binary)
    with triton.InferenceServerClient(server.http) as client:
        result = client.infer(
            "any_fp32",
            [tensor],
            outputs=[output],
            request_compression_algorithm=request_coding,
            response_compression_algorithm=response_coding,
        )
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), x)


@pytest.mark.parametrize("coding", CODINGS)
def test_requests(rest: Rest, coding: str) -> None:
    status, answer = rest.post(INFER, PACK[coding](body()), {"Content-Encoding": coding})
    assert (status, answer["outputs"][0]["data"]) == (200, [1] * 6)


@pytest.mark.parametrize("coding", CODINGS)
def test_the_json_length_is_of_the_unpacked_body(rest: Rest, coding: str) -> None:
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"inputs": [tensor]}).encode()
    data = np.arange(4, dtype=np.float32).tobytes()
    headers = {"Content-Encoding": coding, "Inference-Header-Content-Length": str(len(text))}
    status, answer = rest.post(INFER, PACK[coding](text + data), headers)
    assert (status, answer["outputs"][0]["data"]) == (200, [0, 1, 2, 3])
    raw = {"Content-Encoding": coding, "Inference-Header-Content-Length": "0"}
    status, _, _ = rest.ask("POST", "/v2/models/batch_fp32/infer", PACK[coding](data), raw)
    assert status == 200


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize(("extra", "status"), [(-1, 200), (0, 200), (1, 413)])
def test_the_limit_is_of_the_unpacked_body(rest: Rest, coding: str, extra: int, status: int) -> None:
    text = body() + b" " * (MAX_BYTES - len(body()) + extra)
    found, answer = rest.post(INFER, PACK[coding](text), {"Content-Encoding": coding})
    assert found == status, answer
    if status == 413:
        assert str(MAX_BYTES) in answer["error"]
    assert rest.is_same_connection


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "behind", "plain", "other"])
def test_corrupt_bodies_are_400(rest: Rest, coding: str, path: str, harm: str) -> None:
    good = PACK[coding](body())
    bad = {
        "cut": good[:-3],
        "flipped": good[:-2] + bytes([good[-2] ^ 1]) + good[-1:],
        "behind": good + b"more",
        "plain": body(),
        "other": PACK["gzip" if coding == "deflate" else "deflate"](body()),
    }[harm]
    status, answer = rest.post(path, bad, {"Content-Encoding": coding})
    assert status == 400, answer
    assert coding in answer["error"]
    assert rest.is_same_connection


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress", "*"])
@pytest.mark.parametrize("path", [INFER, "/v2/repository/index"])
def test_other_codings_are_415_and_say_which_there_are(rest: Rest, coding: str, path: str) -> None:
    status, headers, content = rest.ask("POST", path, body(), {"Content-Encoding": coding})
    assert (status, headers["accept-encoding"]) == (415, "gzip, deflate, identity")
    assert f'content-encoding: got "{coding}"' in json.loads(content)["error"]
    assert rest.is_same_connection


def test_cold_routes_take_compressed_bodies_and_answer_plainly_under_v2(rest: Rest) -> None:
    """tritonclient.http.aio accepts compression everywhere and undoes it for inference alone."""
    headers = {"Content-Encoding": "gzip", "Accept-Encoding": "deflate"}
    status, answered, content = rest.ask("POST", "/v2/repository/index", gzip.compress(b"{}"), headers)
    assert (status, "content-encoding" in answered) == (200, False)
    assert any(entry["name"] == "any_fp32" for entry in json.loads(content))


@pytest.mark.parametrize("path", ["/openapi.json", "/docs/page.css", "/docs/page.js"])
def test_documentation_is_given_compressed(rest: Rest, path: str) -> None:
    plain = rest.ask("GET", path, None, {"Accept-Encoding": "identity"})[2]
    status, answered, content = rest.ask("GET", path, None, {"Accept-Encoding": "deflate"})
    assert (status, answered["content-encoding"], answered["vary"]) == (200, "deflate", "accept-encoding")
    assert zlib.decompress(content) == plain


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.2, deflate;q=0.7", "deflate"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", None),
        ("br", None),
        ("*", "gzip"),
        ("nonsense;;q=,,", None),
    ],
)
def test_weights_of_accept_encoding(rest: Rest, accept: str, coding: str | None) -> None:
    status, headers, content = rest.ask("POST", INFER, body(40, 40), {"Accept-Encoding": accept})
    assert (status, headers.get("content-encoding")) == (200, coding)
    assert headers["vary"] == "accept-encoding"
    assert int(headers["content-length"]) == len(content)
    plain = UNPACK[coding](content) if coding else content
    assert json.loads(plain)["outputs"][0]["shape"] == [40, 40]


def test_small_answers_stay_as_they_are(rest: Rest) -> None:
    base = len(rest.ask("POST", INFER, body(1, 1))[2])
    for extra, coding in ((-1, None), (0, "gzip")):
        columns, odd = divmod(FROM_BYTES + extra - base, 2)  # ",1" each, and the digits of the shape
        found = None
        for count in range(columns - 4, columns + 3):
            plain = rest.ask("POST", INFER, body(1, count), {"Accept-Encoding": "identity"})[2]
            if len(plain) in (
                FROM_BYTES + extra,
                FROM_BYTES + extra - 1 if coding is None else FROM_BYTES + 1,
            ):
                found = count
        assert found, odd
        headers = rest.ask("POST", INFER, body(1, found), {"Accept-Encoding": "gzip"})[1]
        assert headers.get("content-encoding") == coding


def test_noise_that_does_not_shrink_stays_as_it_is(rest: Rest) -> None:
    data = np.random.default_rng(0).bytes(16384)
    raw = np.frombuffer(data, np.uint8).tobytes()
    tensor = {
        "name": "INPUT0",
        "datatype": "FP32",
        "shape": [64, 64],
        "parameters": {"binary_data_size": 16384},
    }
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Accept-Encoding": "gzip"}
    status, answered, content = rest.ask("POST", INFER, text + raw, headers)
    assert status == 200
    if answered.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    assert content.endswith(raw)
    assert int(answered["content-length"]) < 16384 + 400


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_compressed(server: Any, tmp_path: Path, version: str) -> None:
    (tmp_path / "body").write_bytes(body(50, 50))
    answer = subprocess.run(
        [
            *("curl", "-sS", version, "--compressed", "-D", str(tmp_path / "head")),
            *("--data-binary", f"@{tmp_path / 'body'}", f"http://{server.http}{INFER}"),
        ],
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout
    assert len(json.loads(answer)["outputs"][0]["data"]) == 2500
    assert "content-encoding: gzip" in (tmp_path / "head").read_text().lower()
