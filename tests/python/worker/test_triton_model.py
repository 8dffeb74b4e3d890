"""TritonPythonModel: what a user's model.py written for Triton sees, and what becomes of its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opening import python_model, request, spec_of, tensor, version_folder

from fastserve import errors
from fastserve.client.local.core import LocalResult
from fastserve.worker.model import Request, open_model

X = tensor("x", "TYPE_FP32", 2)
Y = tensor("y", "TYPE_FP32", 2)
CONFIG = {"max_batch_size": 8, "input": [X], "output": [Y]}
ROW = np.array([[1, 2]], np.float32)

DOUBLE = """
    import json
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def initialize(self, args):
            self.args = args
            self.config = json.loads(args["model_config"])

        def execute(self, requests):
            return [self.one(r) for r in requests]

        def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", x * 2)])
"""


def with_one(body: str) -> str:
    """DOUBLE with another answer to one request."""
    head = DOUBLE.partition("        def one")[0]
    return head + "        def one(self, request):\n" + body


def test_it_answers_every_request(tmp_path: Path) -> None:
    model = python_model(tmp_path, DOUBLE, CONFIG)
    answers = model.execute([request(x=ROW), request(x=ROW * 3)])
    assert [a.error for a in answers] == [None, None]
    np.testing.assert_array_equal(answers[1].outputs["y"], ROW * 6)
    described = model.describe()
    assert (described.max_batch_rows, described.inputs[0].shape, described.platform) == (8, [-1, 2], "python")


def test_parameters_of_a_response(tmp_path: Path) -> None:
    body = """
            parameters = {"a": 1, "b": "x"} if x[0, 0] > 1 else None
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", x)], parameters=parameters)
"""
    code = with_one('            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()' + body)
    model = python_model(tmp_path, code, CONFIG)
    answers = model.execute([request(x=ROW + 5), request(x=ROW * 0)])
    assert [a.parameters for a in answers] == [{"a": 1, "b": "x"}, None]


def test_the_arguments_of_initialize(tmp_path: Path) -> None:
    model: Any = python_model(tmp_path, DOUBLE, CONFIG)
    args = model._model.args
    assert set(args) == {
        "model_config", "model_instance_kind", "model_instance_name", "model_instance_device_id",
        "model_repository", "model_version", "model_name",
    }  # fmt: skip
    assert all(isinstance(value, str) for value in args.values())
    assert (args["model_name"], args["model_version"], args["model_instance_name"]) == ("m", "1", "m_0_0")
    assert args["model_repository"] == str(tmp_path / "m")
    assert model._model.config["input"] == [X]


def test_finalize_is_called_and_may_be_missing(tmp_path: Path) -> None:
    code = DOUBLE + "\n        def finalize(self):\n            self.args['gone'] = 'yes'\n"
    model: Any = python_model(tmp_path, code, CONFIG)
    model.finalize()
    assert model._model.args["gone"] == "yes"
    python_model(tmp_path, DOUBLE, CONFIG).finalize()


def test_what_lies_beside_model_py_can_be_imported(tmp_path: Path) -> None:
    (version_folder(tmp_path) / "beside_it.py").write_text("FACTOR = 5\n")
    code = "    import beside_it\n" + DOUBLE.replace("x * 2", "x * np.float32(beside_it.FACTOR)")
    answer = python_model(tmp_path, code, CONFIG).execute([request(x=ROW)])[0]
    np.testing.assert_array_equal(answer.outputs["y"], ROW * 5)


def test_a_request_says_what_the_client_sent(tmp_path: Path) -> None:
    body = """
            seen = [request.request_id(), request.correlation_id(), request.requested_output_names(),
                    request.priority(), request.timeout(), json.loads(request.parameters()),
                    request.model_name(), request.model_version(), len(request.inputs()), request.flags()]
            text = np.array([json.dumps(seen).encode()], object)
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", text)])
"""
    config = {"max_batch_size": 0, "input": [X], "output": [tensor("y", "TYPE_STRING", 1)]}
    model = python_model(tmp_path, with_one(body), config)
    sent = Request("id-1", {"x": ROW[0]}, (), {"a": 1, "b": "c"}, 2, 1500, 77)
    answer = model.execute([sent])[0]
    assert answer.error is None
    assert answer.outputs["y"][0] == b'["id-1", 77, ["y"], 2, 1500, {"a": 1, "b": "c"}, "m", 1, 1, 0]'


# (what `one` does for the request whose first value is 9, code, what the message holds)
WRONG: list[tuple[str, int, str]] = [
    ("return None", 13, "got None for this request"),
    ("return 3", 13, "got int for this request"),
    ("return pb_utils.InferenceResponse([])", 13, 'outputs["y"]: missing in the response'),
    (
        'return pb_utils.InferenceResponse([pb_utils.Tensor("y", x.astype(np.int32))])',
        13,
        'outputs["y"].datatype: got INT32, want FP32',
    ),
    (
        'return pb_utils.InferenceResponse([pb_utils.Tensor("y", x[:, :1])])',
        13,
        'outputs["y"].shape[1]: got 1, want 2',
    ),
    (
        'return pb_utils.InferenceResponse([pb_utils.Tensor("y", np.concatenate([x, x]))])',
        13,
        'outputs["y"].shape[0]: got 2, want 1',
    ),
    (
        'return pb_utils.InferenceResponse([pb_utils.Tensor("y", x[0])])',
        13,
        'outputs["y"].shape: got [2], want [-1, 2]',
    ),
    ('return pb_utils.InferenceResponse(error=pb_utils.TritonError("no"))', 13, "no"),
    (
        'return pb_utils.InferenceResponse(error=pb_utils.TritonError("bad x", pb_utils.TritonError.INVALID_ARG))',
        3,
        "bad x",
    ),
    (
        'return pb_utils.InferenceResponse(error=pb_utils.TritonError("off", pb_utils.TritonError.UNSUPPORTED))',
        12,
        "off",
    ),
]


@pytest.mark.parametrize(("wrong", "code", "text"), WRONG)
def test_a_bad_response_fails_its_request_alone(tmp_path: Path, wrong: str, code: int, text: str) -> None:
    body = f"""
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            if x[0, 0] == 9:
                {wrong}
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", x)])
"""
    model = python_model(tmp_path, with_one(body), CONFIG)
    nine = np.array([[9, 9]], np.float32)
    before, bad, after = model.execute([request(x=ROW), request(x=nine), request(x=ROW)])
    assert before.error is None
    assert after.error is None
    assert bad.error is not None
    assert bad.error[0] == code
    assert text in bad.error[1]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return None", "returned None, want a list of 2 responses"),
        ("return []", "returned 0 responses for 2 requests"),
        ("return [1, 2, 3]", "returned 3 responses for 2 requests"),
        ("return {}", "returned dict"),
        ("raise KeyError('gone')", "KeyError: 'gone'"),
        ("raise pb_utils.TritonModelException('no weights')", "no weights"),
    ],
)
def test_a_bad_execute_fails_the_batch(tmp_path: Path, body: str, text: str) -> None:
    code = f"""
    import triton_python_backend_utils as pb_utils
    class TritonPythonModel:
        def execute(self, requests):
            {body}
"""
    answers = python_model(tmp_path, code, CONFIG).execute([request(x=ROW), request(x=ROW)])
    assert len(answers) == 2
    for answer in answers:
        assert answer.error is not None
        assert answer.error[0] == 13
        assert text in answer.error[1]


def test_only_the_wanted_outputs_are_answered_and_needed(tmp_path: Path) -> None:
    body = """
            wanted = request.requested_output_names()
            x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, x) for name in wanted])
"""
    config = {**CONFIG, "output": [Y, tensor("z", "TYPE_FP32", 2)]}
    model = python_model(tmp_path, with_one(body), config)
    one = model.execute([Request("", {"x": ROW}, ("z",))])[0]
    both = model.execute([Request("", {"x": ROW})])[0]
    assert (list(one.outputs), list(both.outputs)) == (["z"], ["y", "z"])


def test_an_async_execute_is_awaited(tmp_path: Path) -> None:
    code = DOUBLE.replace("def execute", "async def execute")
    answer = python_model(tmp_path, code, CONFIG).execute([request(x=ROW)])[0]
    np.testing.assert_array_equal(answer.outputs["y"], ROW * 2)


COMPLETES = (
    DOUBLE
    + """
        @staticmethod
        def auto_complete_config(config):
            config.set_max_batch_size(ROWS)
            config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [DIMS]})
            config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [2]})
            config.set_dynamic_batching()
            config.set_model_transaction_policy({"decoupled": DECOUPLED})
            return config
"""
)


def completes(rows: int = 16, dims: int = 2, decoupled: bool = False) -> str:
    text = COMPLETES.replace("ROWS", str(rows)).replace("DIMS", str(dims))
    return text.replace("DECOUPLED", str(decoupled))


def test_auto_complete_config_makes_the_signature(tmp_path: Path) -> None:
    model: Any = python_model(tmp_path, completes())
    described = model.describe()
    assert described.max_batch_rows == 16
    assert [(t.name, t.datatype, t.shape) for t in described.inputs] == [("x", "FP32", [-1, 2])]
    assert model._model.config["max_batch_size"] == 16, "initialize gets the completed configuration"
    assert model._model.config["dynamic_batching"] == {}


def test_auto_complete_config_contradicts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_batch_size: the configuration has 8, the model takes 4"):
        python_model(tmp_path, completes(rows=4), CONFIG)
    with pytest.raises(ValueError, match=r'input "x": dims: the configuration has \[2\], the model says'):
        python_model(tmp_path, completes(dims=3), CONFIG)


@pytest.mark.parametrize(
    ("code", "config"),
    [
        (completes(decoupled=True), {}),
        (DOUBLE, {**CONFIG, "model_transaction_policy": {"decoupled": True}}),
        (DOUBLE.replace("return [self.one(r) for r in requests]", "yield 1"), CONFIG),
    ],
)
def test_decoupled_models_are_refused_at_load(tmp_path: Path, code: str, config: dict[str, Any]) -> None:
    with pytest.raises(errors.Unimplemented, match="decoupled"):
        python_model(tmp_path, code, config)


@pytest.mark.parametrize(
    ("code", "config", "text"),
    [
        (DOUBLE, {}, "config.input: is missing"),
        (DOUBLE, {"input": [X]}, "config.output: is missing"),
        ("    x = 1\n", CONFIG, "got no models, want one class TritonPythonModel"),
        ("    class TritonPythonModel: pass\n", CONFIG, "has no method execute"),
        (DOUBLE, {**CONFIG, "input": [tensor("x", "TYPE_FOO", 1)]}, 'input\\["x"\\].data_type: got "FOO"'),
    ],
)
def test_what_cannot_be_a_model(tmp_path: Path, code: str, config: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        python_model(tmp_path, code, config)


def test_a_missing_file_and_an_unknown_kind(tmp_path: Path) -> None:
    version_folder(tmp_path)
    with pytest.raises(errors.InvalidArgument, match=r"has no model\.py"):
        open_model(spec_of(tmp_path, "python"), None)
    with pytest.raises(errors.InvalidArgument, match="backend: got 'java', want one of python"):
        open_model(spec_of(tmp_path, "java"), None)


class FakeCalls:
    """Answers as model "twice" would; the others do not exist."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def infer(
        self, model: str, version: int, inputs: Any, outputs: Any, *, timeout_s: float | None = None,
        priority: int = 0, parameters: Any = None, request_id: str = "",
    ) -> LocalResult:  # fmt: skip
        self.seen.append((model, version, list(outputs), timeout_s, priority, parameters, request_id))
        if model != "twice":
            raise errors.NotFound(f"unknown model '{model}'")
        return LocalResult({"y": inputs["x"] * 2}, {"by": model})


CALLER = """
    import asyncio
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        async def execute(self, requests):
            return await asyncio.gather(*[self.one(r) for r in requests])

        async def one(self, request):
            x = pb_utils.get_input_tensor_by_name(request, "x")
            to = "twice" if x.as_numpy()[0, 0] < 9 else "nobody"
            call = pb_utils.InferenceRequest(model_name=to, requested_output_names=["y"], inputs=[x],
                request_id="r", model_version=3, timeout=2000000, parameters={"k": 1})
            response = {how}
            if response.has_error():
                return pb_utils.InferenceResponse(error=response.error())
            y = pb_utils.get_output_tensor_by_name(response, "y")
            return pb_utils.InferenceResponse([pb_utils.Tensor("y", y.as_numpy())])
"""


@pytest.mark.parametrize("how", ["call.exec()", "await call.async_exec()"])
def test_calls_to_other_models(tmp_path: Path, how: str) -> None:
    calls = FakeCalls()
    model = python_model(tmp_path, CALLER.replace("{how}", how), CONFIG, calls)
    good, bad = model.execute([request(x=ROW), request(x=ROW * 9)])
    np.testing.assert_array_equal(good.outputs["y"], ROW * 2)
    assert bad.error == (5, "unknown model 'nobody'")
    assert ("twice", 3, ["y"], 2.0, 0, {"k": 1}, "r") in calls.seen


def test_calls_without_a_server_are_an_error_of_the_call(tmp_path: Path) -> None:
    model = python_model(tmp_path, CALLER.replace("{how}", "call.exec()"), CONFIG)
    (answer,) = model.execute([request(x=ROW)])
    assert answer.error == (12, "calls to other models are not available in this process")
