"""InferParameter of every kind, on the request, its inputs and its outputs; unary and in a stream."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from duplex import Duplex
from tritonclient.grpc import service_pb2
from wire import Infer, Refused, fp32, grpc_infer, message

VALUES: dict[str, Any] = {
    "bool_param": True,
    "int64_param": -(1 << 63),
    "string_param": "grüße",
    "double_param": 1e300,
    "uint64_param": (1 << 64) - 1,
}


def request() -> Any:
    made = message(Infer("batch_fp32", (fp32("INPUT0", 1, 4),), outputs=("OUTPUT0",), id="7"))
    assert isinstance(made, service_pb2.ModelInferRequest)
    return made


def with_parameter(where: str, name: str, kind: str, value: Any) -> Any:
    made = request()
    target = {"request": made, "input": made.inputs[0], "output": made.outputs[0]}[where]
    setattr(target.parameters[name], kind, value)
    return made


def refusal(channel: grpc.Channel, made: Any, *, streaming: bool) -> tuple[int, str]:
    """Code and message; in a stream only the message, and (0, "") when it was taken."""
    if streaming:
        duplex = Duplex(channel, metadata=(("triton_grpc_error", "true"),))
        duplex.put(made)
        duplex.half_close()
        try:
            answer = duplex.receive()
        except grpc.RpcError:
            return duplex.call.code().value[0], duplex.call.details()
        assert answer.infer_response.id == "7"
        return 0, ""
    answer = grpc_infer(channel, made)
    return (answer.code, answer.message) if isinstance(answer, Refused) else (0, "")


streams = pytest.mark.parametrize("streaming", [False, True], ids=["unary", "stream"])


@streams
@pytest.mark.parametrize("where", ["request", "input", "output"])
@pytest.mark.parametrize("kind", VALUES)
def test_every_kind_is_taken(channel: grpc.Channel, where: str, kind: str, streaming: bool) -> None:
    made = with_parameter(where, "my_parameter", kind, VALUES[kind])
    assert refusal(channel, made, streaming=streaming) == (0, "")


TAKEN = [
    ("priority", "uint64_param", 1),
    ("priority", "int64_param", 1),
    ("timeout", "int64_param", 10_000_000),
    ("timeout", "uint64_param", 10_000_000),
    ("sequence_id", "string_param", "a"),
    ("sequence_id", "int64_param", 1),
    ("sequence_start", "bool_param", True),
    ("sequence_end", "bool_param", True),
    ("binary_data_output", "bool_param", True),
    ("triton_enable_empty_final_response", "bool_param", True),
    ("triton_enable_empty_final_response", "bool_param", False),
]


@streams
@pytest.mark.parametrize(("name", "kind", "value"), TAKEN, ids=lambda value: str(value))
def test_known_parameters_of_the_right_kind(
    channel: grpc.Channel, name: str, kind: str, value: Any, streaming: bool
) -> None:
    assert refusal(channel, with_parameter("request", name, kind, value), streaming=streaming) == (0, "")


def expected(name: str, kind: str) -> str:
    return f"invalid value type for '{name}' parameter, expected {kind}"


WRONG = [
    ("request", "priority", "string_param", "1", expected("priority", "uint64_param or int64_param")),
    ("request", "priority", "bool_param", True, expected("priority", "uint64_param or int64_param")),
    ("request", "priority", "int64_param", -1, 'parameters["priority"]: got -1, want 0 to 4294967295'),
    ("request", "priority", "uint64_param", 1 << 32, 'parameters["priority"]: got 4294967296'),
    ("request", "timeout", "double_param", 1.0, expected("timeout", "int64_param")),
    ("request", "timeout", "string_param", "1", expected("timeout", "int64_param")),
    ("request", "timeout", "int64_param", -1, 'parameters["timeout"]: got -1'),
    ("request", "sequence_id", "bool_param", True, expected("sequence_id", "int64_param or string_param")),
    ("request", "sequence_id", "double_param", 1.0, expected("sequence_id", "int64_param or string_param")),
    ("request", "sequence_start", "int64_param", 1, expected("sequence_start", "bool_param")),
    ("request", "sequence_end", "string_param", "true", expected("sequence_end", "bool_param")),
    ("request", "binary_data_output", "int64_param", 1, expected("binary_data_output", "bool_param")),
    (
        "request",
        "triton_enable_empty_final_response",
        "int64_param",
        1,
        expected("triton_enable_empty_final_response", "bool_param"),
    ),
    ("request", "triton_anything", "bool_param", True, "names that start with 'triton_' are reserved"),
    ("output", "classification", "uint64_param", 1, expected("classification", "int64_param")),
    ("output", "classification", "string_param", "1", expected("classification", "int64_param")),
    ("output", "classification", "int64_param", 0, 'parameters["classification"]: got 0, want 1 or more'),
]


@streams
@pytest.mark.parametrize(
    ("where", "name", "kind", "value", "words"), WRONG, ids=lambda value: str(value)[:24]
)
def test_wrong_kinds_and_values(
    channel: grpc.Channel, where: str, name: str, kind: str, value: Any, words: str, streaming: bool
) -> None:
    code, text = refusal(channel, with_parameter(where, name, kind, value), streaming=streaming)
    assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0], text
    assert words in text
    assert text.startswith("[request id: 7] ")


@streams
@pytest.mark.parametrize("where", ["request", "input", "output"])
def test_a_parameter_without_a_value(channel: grpc.Channel, where: str, streaming: bool) -> None:
    made = request()
    target = {"request": made, "input": made.inputs[0], "output": made.outputs[0]}[where]
    target.parameters["empty"].SetInParent()
    code, text = refusal(channel, made, streaming=streaming)
    assert code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert 'parameters["empty"]: got no value' in text


@pytest.mark.parametrize("count", [63, 64, 65])
def test_how_many_parameters_a_request_may_have(channel: grpc.Channel, count: int) -> None:
    made = request()
    for number in range(count):
        made.parameters[f"p{number}"].int64_param = number
    code, text = refusal(channel, made, streaming=False)
    assert (code, "parameters: got more than 64" in text) == ((3, True) if count == 65 else (0, False))
