"""What Triton's clients expect of a Python model over every front end: parameters both ways, inputs that may be left out."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from running_server import RunningServer
from tritonclient.utils import InferenceServerException

import fastserve
from fastserve import errors
from fastserve.client import Client
from fastserve.client.local import LocalClient

PACKAGE = Path(fastserve.__file__).parent
HEADER, ARCHIVE = PACKAGE / "include" / "fastserve_local.h", PACKAGE / "lib" / "libfastserve_local.a"

SAYS = """
    import json
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            y = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            bias = pb_utils.get_input_tensor_by_name(request, "bias")
            given = json.loads(request.parameters())
            if bias is not None:
                y = y + bias.as_numpy()
            if "count" in given:
                given = {f"p{i}": i for i in range(given["count"])}
            if "size" in given:
                given = {"text": "x" * given["size"]}
            if "extra" in given:
                given = {"half": 0.5, "large": 2**64 - 1, "low": -(2**63), "empty": "", "word": "gr\\u00fc\\u00dfe", "no": False}
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", y)], parameters=given)
"""
CONFIG = """
backend: "python" max_batch_size: {rows}
input {{ name: "x" data_type: TYPE_FP32 dims: 2 }}
input {{ name: "bias" data_type: TYPE_FP32 dims: 2 optional: true }}
output {{ name: "y" data_type: TYPE_FP32 dims: 2 }}
{more}
"""
CALLS = """
    import json
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x")
            call = pb_utils.InferenceRequest("says", ["y"], [x], parameters=json.loads(request.parameters()))
            answer = call.exec()
            if answer.has_error():
                return pb_utils.InferenceResponse(error=answer.error())
            heard = json.loads(answer.parameters())
            return pb_utils.InferenceResponse(answer.output_tensors(), parameters={**heard, "through": "calls"})
"""

EXTRA = {"half": 0.5, "large": 2**64 - 1, "low": -(2**63), "empty": "", "word": "grüße", "no": False}
X = np.array([[1, 2]], np.float32)

Answer = tuple[list[list[float]], dict[str, Any]]
Ask = Callable[..., Answer]  # (model, parameters, **inputs) -> output y and the answer's parameters


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("parameters")
    for name, code, rows, more in (
        ("says", SAYS, 8, ""),
        ("cached", SAYS, 8, "response_cache { enable: true }"),
        ("split", SAYS, 1, 'parameters { key: "max_request_batch_size" value { string_value: "4" } }'),
        ("calls", CALLS, 8, ""),
    ):
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(CONFIG.format(rows=rows, more=more))
        (folder / "models" / name / "1" / "model.py").write_text(textwrap.dedent(code))
    flags = ("--allow-python-models", "--local", f"unix:{folder}/local.sock")
    cache = ("--cache-config", "local,size=1048576")
    with RunningServer(folder / "models", folder, *flags, *cache) as running:
        yield running


def tensors(module: Any, inputs: dict[str, Any]) -> list[Any]:
    made = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


def value_of(parameter: Any) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice"))


def over_grpc(server: RunningServer) -> Iterator[Ask]:
    with triton_grpc.InferenceServerClient(server.grpc) as client:

        def ask(model: str, parameters: dict[str, Any] | None = None, **inputs: Any) -> Answer:
            answer = client.infer(model, tensors(triton_grpc, inputs), parameters=parameters)
            said = {name: value_of(value) for name, value in answer.get_response().parameters.items()}
            return answer.as_numpy("y").tolist(), said

        yield ask


def over_grpc_stream(server: RunningServer) -> Iterator[Ask]:
    answers: queue.Queue[Any] = queue.Queue()
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))

        def ask(model: str, parameters: dict[str, Any] | None = None, **inputs: Any) -> Answer:
            client.async_stream_infer(model, tensors(triton_grpc, inputs), parameters=parameters)
            result, error = answers.get(timeout=20)
            if error is not None:
                raise error
            said = {name: value_of(value) for name, value in result.get_response().parameters.items()}
            assert said.pop("triton_final_response") is True
            return result.as_numpy("y").tolist(), said

        yield ask
        client.stop_stream()


def over_rest(server: RunningServer) -> Iterator[Ask]:
    with triton_http.InferenceServerClient(server.http) as client:

        def ask(model: str, parameters: dict[str, Any] | None = None, **inputs: Any) -> Answer:
            answer = client.infer(model, tensors(triton_http, inputs), parameters=parameters)
            return answer.as_numpy("y").tolist(), answer.get_response().get("parameters", {})

        yield ask


def over_local(server: RunningServer) -> Iterator[Ask]:
    with LocalClient(server.addresses["local"]) as client:

        def ask(model: str, parameters: dict[str, Any] | None = None, **inputs: Any) -> Answer:
            answer = client.infer(model, inputs, parameters=parameters)
            return answer["y"].tolist(), answer.parameters

        yield ask


WAYS = {"grpc": over_grpc, "stream": over_grpc_stream, "rest": over_rest, "local": over_local}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def ask(way: str, server: RunningServer) -> Iterator[Ask]:
    yield from WAYS[way](server)


def test_parameters_go_there_and_come_back(ask: Ask) -> None:
    given = {"flag": True, "whole": 3, "word": "grüße", "negative": -5}
    assert ask("says", given, x=X) == ([[1, 2]], given)
    assert ask("says", x=X) == ([[1, 2]], {}), "none of the request before"


def test_every_kind_comes_back(ask: Ask) -> None:
    assert ask("says", {"extra": True}, x=X) == ([[1, 2]], EXTRA)
    assert ask("calls", {"extra": True}, x=X) == ([[1, 2]], {**EXTRA, "through": "calls"})


def test_a_cached_answer_has_them_too(way: str, ask: Ask, server: RunningServer) -> None:
    hits = 'nv_cache_num_hits_per_model{model="cached",version="1"}'
    before = server.scrape().get(hits, 0)
    for _ in range(2):
        assert ask("cached", {"extra": True}, x=X + 7) == ([[8, 9]], EXTRA)
    if way != "local":  # its inputs may change meanwhile: nothing of it is kept
        assert server.scrape()[hits] > before


def test_a_split_request_has_those_of_its_first_part(ask: Ask) -> None:
    assert ask("split", {"word": "w"}, x=np.concatenate([X, X])) == ([[1, 2], [1, 2]], {"word": "w"})


def test_as_many_as_are_allowed(way: str, ask: Ask) -> None:
    for count in (45, *([63, 64] if way != "local" else [])):  # more do not fit into the cell
        assert ask("says", {"count": count}, x=X)[1] == {f"p{i}": i for i in range(count)}
    with pytest.raises(
        (InferenceServerException, errors.Internal), match="parameters: got 65, want 64 or fewer"
    ):
        ask("says", {"count": 65}, x=X)
    assert ask("says", x=X)[0] == [[1, 2]]


def test_texts_as_long_as_are_allowed(server: RunningServer) -> None:
    for ask in over_grpc(server):
        assert ask("says", {"size": 65536}, x=X)[1] == {"text": "x" * 65536}
        with pytest.raises(
            InferenceServerException, match=r'parameters\["text"\]: a text has at most 65536 bytes'
        ):
            ask("says", {"size": 65537}, x=X)
    for ask in over_local(server):
        assert ask("says", {"size": 800}, x=X)[1] == {"text": "x" * 800}
        with pytest.raises(
            errors.ResourceExhausted, match="the answer: it does not fit into a cell of 1024 bytes"
        ):
            ask("says", {"size": 1000}, x=X)
    with LocalClient(server.addresses["local"], cell_bytes=4096) as client:
        assert client.infer("says", {"x": X}, parameters={"size": 3000}).parameters == {"text": "x" * 3000}


def test_an_input_may_be_left_out(ask: Ask) -> None:
    assert ask("says", x=X, bias=X)[0] == [[2, 4]]
    assert ask("says", x=X)[0] == [[1, 2]]
    with pytest.raises((InferenceServerException, errors.InvalidArgument), match=r'inputs\["x"\]: missing'):
        ask("says", bias=X)


def test_slots_without_the_optional_input(server: RunningServer) -> None:
    with LocalClient(server.addresses["local"]) as client:
        with client.slot("says", outputs=["y"]) as slot:
            assert list(slot.inputs) == ["x"]
            slot.inputs["x"][:] = X
            answer = slot.run(parameters={"a": 1})
            assert (answer["y"].tolist(), answer.parameters) == ([[1, 2]], {"a": 1})
        with client.slot("says", shapes={"bias": [1, 2]}) as slot:
            slot.inputs["x"][:] = X
            slot.inputs["bias"][:] = 1
            assert slot.run()["y"].tolist() == [[2, 3]]


def test_own_clients_have_them(server: RunningServer) -> None:
    for address in (f"grpc://{server.grpc}", f"http://{server.http}"):
        with Client(address) as client:
            answer = client.infer("says", {"x": X}, parameters={"word": "w", "n": 2})
            assert (answer["y"].tolist(), answer.parameters) == ([[1, 2]], {"word": "w", "n": 2})


def test_metadata_and_configuration_say_what_is_optional(server: RunningServer) -> None:
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        config = client.get_model_config("says", as_json=True)["config"]
    assert {t["name"]: t.get("optional", False) for t in config["input"]} == {"x": False, "bias": True}


def test_c_client(server: RunningServer, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None or not ARCHIVE.exists():
        pytest.skip("wants gcc and the installed archive")
    source = Path(__file__).parents[1] / "csrc" / "client" / "local_parameters.c"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", f"-I{HEADER.parent}"]
    program = tmp_path / "program"
    subprocess.run([compiler, *flags, source, ARCHIVE, "-lstdc++", "-lpthread", "-o", program], check=True)
    path = server.addresses["local"].removeprefix("unix:")
    done = subprocess.run([program, path, "says"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = ["flag bool 1", "low int -5", f"large uint {2**64 - 1}", "share double 0.25", "word text text"]
    assert done.stdout.splitlines() == [*lines, "then 0"]


def test_what_is_no_parameter_fails_the_request() -> None:
    from fastserve.worker.models import pb_utils

    for given in ({"p": [1]}, {"p": None}, {1: 2}, {"": 1}, {"p": "\ud800"}):
        with pytest.raises(pb_utils.TritonModelException, match="InferenceResponse: parameters"):
            pb_utils.InferenceResponse([], parameters=given)  # type: ignore[arg-type]
    response = pb_utils.InferenceResponse([], parameters={"a": 1, "b": "x"})
    assert json.loads(response.parameters()) == {"a": 1, "b": "x"}
    assert pb_utils.InferenceResponse([]).parameters() == "{}"
