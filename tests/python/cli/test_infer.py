"""`fastserve infer` against a server of this test that takes the wire format apart by hand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastserve.cli.main import main
from fastserve.client.tensors import DTYPES, from_bytes, to_bytes

INPUTS = {
    "echo": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "two": [
        {"name": "a", "datatype": "INT64", "shape": [2]},
        {"name": "s", "datatype": "BYTES", "shape": [-1]},
    ],
}


class Echo(BaseHTTPRequestHandler):
    """Outputs are the inputs, in binary; numbers of requests and connections are counted on the server."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        model = self.path.split("/")[3]
        if model not in INPUTS:
            self._answer(404, {"error": f"Request for unknown model: '{model}' is not found"})
        else:
            self._answer(200, {"name": model, "inputs": INPUTS[model], "outputs": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        head = json.loads(body[:length])
        assert head["parameters"] == {"binary_data_output": True}
        assert sum(i["parameters"]["binary_data_size"] for i in head["inputs"]) == len(body) - length
        self.server.requests.append(self.path)  # type: ignore[attr-defined]
        answer = {"model_name": self.path.split("/")[3], "model_version": "7", "outputs": head["inputs"]}
        self._answer(200, answer, body[length:])

    def _answer(self, status: int, document: dict[str, Any], binary: bytes = b"") -> None:
        head = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(head) + len(binary)))
        if binary:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.end_headers()
        self.wfile.write(head + binary)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    http = HTTPServer(("127.0.0.1", 0), Echo)
    http.requests, http.connections = [], 0  # type: ignore[attr-defined]
    http.url = f"http://127.0.0.1:{http.server_port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


def infer(server: Any, *arguments: str) -> int:
    return main(["infer", *arguments, "--url", server.url])


def outputs(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer = json.loads(capsys.readouterr().out)
    return {output["name"]: output["data"] for output in answer["outputs"]}


def test_values_of_every_kind(server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.5, 2, 3]], np.float64))
    (tmp_path / "x.json").write_text("[[4, 5, 6]]")
    cases = {
        f"x={tmp_path}/x.npy": [1.5, 2, 3],
        f"x={tmp_path}/x.json": [4, 5, 6],
        "x=[[7, 8.5, 9]]": [7, 8.5, 9],
        "zeros": [0, 0, 0],  # without a name: there is one input
    }
    for text, values in cases.items():
        assert infer(server, "echo", "--input", text, "--json") == 0
        assert outputs(capsys) == {"x": values}


def test_several_inputs_and_strings(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert infer(server, "two", "--input", 's=["a", "é", ""]', "--input", "a=[1, -2]", "--json") == 0
    assert outputs(capsys) == {"s": ["a", "é", ""], "a": [1, -2]}


def test_random_is_the_same_for_a_seed(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers = []
    for seed in ("1", "1", "2"):
        assert infer(server, "echo", "--input", "x=random", "--batch", "2", "--seed", seed, "--json") == 0
        answers.append(outputs(capsys)["x"])
    assert len(answers[0]) == 6
    assert answers[0] == answers[1] != answers[2]


def test_version_repeat_save_and_print(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out.npz"
    assert (
        infer(server, "echo", "--version", "7", "--input", "zeros", "--repeat", "5", "--save", str(file)) == 0
    )
    assert server.requests == ["/v2/models/echo/versions/7/infer"] * 5
    assert server.connections == 1
    assert np.load(file)["x"].tolist() == [[0, 0, 0]]
    text = capsys.readouterr().out
    assert text.startswith("echo version 7\n  x FP32[1, 3]: 0 0 0\n  5 requests, ms: min ")


@pytest.mark.parametrize(
    ("arguments", "code", "fragment"),
    [
        (["gone", "--input", "zeros"], 1, "404 Not Found: Request for unknown model: 'gone' is not found"),
        (["echo"], 2, "no --input given; the model takes x FP32[-1, 3]; try --input x=random"),
        (["echo", "--input", "y=zeros"], 2, "no input 'y'; there are x"),
        (["two", "--input", "zeros"], 2, "the model has 2 inputs: NAME=DATA (a, s)"),
        (["echo", "--input", "x=missing.npy"], 2, "x=missing.npy: No such file or directory"),
        (["echo", "--input", "x=[1,"], 2, "--input x=[1,: "),
        (["echo", "--input", 'x=["a"]'], 2, "the model takes FP32"),
        (
            ["echo", "--input", "zeros", "--save", "/nowhere/out.npz"],
            2,
            "--save /nowhere/out.npz: No such file",
        ),
    ],
)
def test_errors(
    server: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, fragment: str
) -> None:
    assert infer(server, *arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fastserve: error: ")
    assert fragment in line


@pytest.mark.parametrize("datatype", DTYPES)
def test_bytes_of_every_datatype(datatype: str) -> None:
    array = np.array([[0, 1], [1, 0]], DTYPES[datatype])
    data = to_bytes(datatype, array)
    assert len(data) == array.nbytes
    assert from_bytes(datatype, [2, 2], data).tolist() == array.tolist()


def test_bytes_of_what_numpy_lacks() -> None:
    assert (
        to_bytes("BYTES", np.array(["é", b"\x00"], object)) == b"\x02\x00\x00\x00\xc3\xa9\x01\x00\x00\x00\x00"
    )
    assert from_bytes("BYTES", [2], b"\x01\x00\x00\x00a\x00\x00\x00\x00").tolist() == [b"a", b""]
    assert to_bytes("BF16", np.array([1.0, -2.0], np.float32)) == b"\x80\x3f\x00\xc0"
    assert from_bytes("BF16", [2], b"\x80\x3f\x00\xc0").tolist() == [1.0, -2.0]
