"""gRPC by hand: contents in every form, what the messages must not be, methods that are not there, deadlines."""

from __future__ import annotations

import time
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from model_repository import DATATYPES, SLOW_S, WIDTH, values
from tritonclient.grpc import service_pb2
from wire import INFER, SERVICE, Infer, Refused, fp32, grpc_call, grpc_infer, message

OK_REQUEST = Infer("batch_fp32", (fp32("INPUT0", 1, 4),), id="good")


def served_still(channel: grpc.Channel) -> bool:
    return bool(grpc_infer(channel, OK_REQUEST).id == "good")


# --- contents

_FIELDS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def typed(model: str, datatype: str, shape: tuple[int, ...], elements: list[Any], into: str = "") -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="INPUT0", datatype=datatype, shape=shape)
    getattr(tensor.contents, into or _FIELDS[datatype]).extend(elements)
    return request


@pytest.mark.parametrize("datatype", _FIELDS)
def test_typed_contents(channel: grpc.Channel, datatype: str) -> None:
    x = values(datatype, (2, WIDTH))
    answer = grpc_infer(channel, typed(f"batch_{datatype.lower()}", datatype, x.shape, x.ravel().tolist()))
    assert not isinstance(answer, Refused), answer
    assert not answer.outputs[0].HasField("contents")  # always raw_output_contents, one per output
    raw = answer.raw_output_contents[0]
    if datatype == "BYTES":
        expected = b"".join(len(text).to_bytes(4, "little") + text for text in x.ravel())
    else:
        expected = x.tobytes()
    assert raw == expected


@pytest.mark.parametrize("datatype", DATATYPES)
def test_raw_contents(channel: grpc.Channel, datatype: str) -> None:
    if datatype == "BYTES":
        data = b"".join(len(text).to_bytes(4, "little") + text for text in values("BYTES", (WIDTH,)))
    elif datatype == "BF16":
        data = bytes(range(2 * WIDTH))
    else:
        data = values(datatype, (WIDTH,)).tobytes()
    request = service_pb2.ModelInferRequest(model_name=f"batch_{datatype.lower()}", raw_input_contents=[data])
    request.inputs.add(name="INPUT0", datatype=datatype, shape=[1, WIDTH])
    answer = grpc_infer(channel, request)
    assert not isinstance(answer, Refused), answer
    output = answer.outputs[0]
    assert (output.name, output.datatype, list(output.shape)) == ("OUTPUT0", datatype, [1, WIDTH])
    assert answer.raw_output_contents[0] == data


def test_raw_contents_may_come_first_in_the_message(channel: grpc.Channel) -> None:
    whole = message(OK_REQUEST)
    head, tail = service_pb2.ModelInferRequest(), service_pb2.ModelInferRequest()
    head.CopyFrom(whole)
    head.ClearField("raw_input_contents")
    tail.raw_input_contents.extend(whole.raw_input_contents)
    answer = grpc_call(channel, INFER, tail.SerializeToString() + head.SerializeToString())
    assert isinstance(answer, bytes), answer
    assert (
        service_pb2.ModelInferResponse.FromString(answer).raw_output_contents[0]
        == whole.raw_input_contents[0]
    )


def test_unknown_fields_are_skipped(channel: grpc.Channel) -> None:
    payload = b"\xfa\x3f\x03abc" + message(OK_REQUEST).SerializeToString() + b"\xf8\x3f\x96\x01"  # field 1023
    assert isinstance(grpc_call(channel, INFER, payload), bytes)


def _both(**tensor: Any) -> Any:
    request = message(OK_REQUEST)
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    return request


def _raw_count(count: int) -> Any:
    request = message(OK_REQUEST)
    del request.raw_input_contents[:]
    request.raw_input_contents.extend([bytes(16)] * count)
    return request


def _shm() -> Any:
    request = message(OK_REQUEST)
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return request


BAD = {
    "both contents and raw": (
        _both(),
        "contents field must not be specified when using raw_input_contents for 'INPUT0'",
    ),
    "more raw contents than inputs": (_raw_count(2), "raw_input_contents"),
    "typed FP16": (typed("batch_fp16", "FP16", (1, 4), [1, 2, 3, 4], "fp32_contents"), "FP16"),
    "typed BF16": (typed("batch_bf16", "BF16", (1, 4), [1, 2, 3, 4], "fp32_contents"), "BF16"),
    "contents of another dtype": (
        typed("batch_fp32", "FP32", (1, 4), [1, 2, 3, 4], "int_contents"),
        "fp32_contents",
    ),
    "too few elements": (typed("batch_fp32", "FP32", (1, 4), [1, 2, 3]), "INPUT0"),
    "too many elements": (typed("batch_fp32", "FP32", (1, 4), [1] * 5), "INPUT0"),
    "no contents": (typed("batch_fp32", "FP32", (1, 4), []), "INPUT0"),
    "INT8 out of range": (typed("batch_int8", "INT8", (1, 4), [1, 2, 300, 4]), ""),
}


@pytest.mark.parametrize("name", [name for name in BAD if name != "INT8 out of range"])
def test_bad_contents(channel: grpc.Channel, name: str) -> None:
    request, words = BAD[name]
    answer = grpc_infer(channel, request)
    assert isinstance(answer, Refused), answer
    assert answer.code == 3, answer
    assert words in answer.message
    assert served_still(channel)


def test_narrow_integers_are_cut_to_their_size(channel: grpc.Channel) -> None:
    answer = grpc_infer(channel, BAD["INT8 out of range"][0])
    assert answer.raw_output_contents[0] == bytes([1, 2, 300 - 256, 4])


def test_shared_memory_is_refused_and_not_ignored(channel: grpc.Channel) -> None:
    answer = grpc_infer(channel, _shm())
    assert isinstance(answer, Refused), answer
    assert answer.code in (3, 5, 12), answer
    assert served_still(channel)


# --- messages


@pytest.mark.parametrize("cut", [1, 5, 20, 40, -1, -10])
def test_truncated_protobuf(channel: grpc.Channel, cut: int) -> None:
    answer = grpc_call(channel, INFER, message(OK_REQUEST).SerializeToString()[:cut])
    assert isinstance(answer, Refused), answer
    # A cut between two fields leaves a whole message of an unknown model.
    assert answer.code in (3, 5), answer
    assert served_still(channel)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff" * 50,
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0b" * 2000,
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\x02\xff\xfe",
    ],
    ids=["empty", "noise", "length", "groups", "varint", "not-utf8"],
)
def test_bad_protobuf(channel: grpc.Channel, payload: bytes) -> None:
    answer = grpc_call(channel, INFER, payload)
    assert isinstance(answer, Refused)
    assert answer.code in (3, 5), answer
    assert len(answer.message) <= 1024
    assert served_still(channel)


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata", "ModelStatistics", "RepositoryIndex"])
def test_truncated_protobuf_to_other_methods(channel: grpc.Channel, method: str) -> None:
    answer = grpc_call(channel, SERVICE + method, b"\x0a\xff")
    assert isinstance(answer, Refused)
    assert answer.code == 3, answer
    assert served_still(channel)


def test_a_message_over_the_limit(channel: grpc.Channel) -> None:
    request = Infer("any_fp32", (fp32("INPUT0", 1100, 1024),))  # 4.3 MiB; the server takes 4
    answer = grpc_infer(channel, request)
    assert isinstance(answer, Refused), "it was taken"
    assert answer.code == 8, answer
    assert served_still(channel)


def test_a_message_just_under_the_limit(channel: grpc.Channel) -> None:
    request = Infer("any_fp32", (fp32("INPUT0", 1023, 1024),))
    assert grpc_infer(channel, request).raw_output_contents[0] == request.inputs[0].data


# --- methods


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (SERVICE + "NoSuchMethod", "NoSuchMethod"),
        (SERVICE + "modelinfer", "modelinfer"),
        ("/inference.GRPCInferenceServic/ModelInfer", "inference.GRPCInferenceServic"),
        ("/tensorflow.serving.PredictionService/Predict", "tensorflow.serving.PredictionService"),
        (SERVICE + "SystemSharedMemoryRegister", "shared memory"),
    ],
)
def test_methods_that_are_not_there(channel: grpc.Channel, path: str, words: str) -> None:
    answer = grpc_call(channel, path, b"")
    assert isinstance(answer, Refused)
    assert answer.code == 12, answer
    assert words in answer.message
    assert served_still(channel)


def test_health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "inference.GRPCInferenceService", "no.such.Service"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_health_watch(channel: grpc.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=5)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    assert served_still(channel)


# --- deadlines


def test_deadline(channel: grpc.Channel) -> None:
    request = Infer("slow", (fp32("INPUT0", 1, 4),))
    started = time.monotonic()
    answer = grpc_infer(channel, request, timeout=0.1)
    assert isinstance(answer, Refused)
    assert answer.code == 4, answer
    assert time.monotonic() - started < SLOW_S
    assert served_still(channel)


def test_cancelling_leaves_the_connection_well(channel: grpc.Channel) -> None:
    call = channel.unary_unary(INFER).future(
        message(Infer("slow", (fp32("INPUT0", 1, 4),))).SerializeToString()
    )
    time.sleep(0.02)
    assert call.cancel()
    assert served_still(channel)


def test_many_streams_of_one_connection_answer_each_their_own(channel: grpc.Channel) -> None:
    calls = []
    for number in range(64):
        x = np.full((1, WIDTH), number, np.float32)
        request = service_pb2.ModelInferRequest(model_name="batch_fp32", id=str(number))
        request.inputs.add(name="INPUT0", datatype="FP32", shape=x.shape)
        request.raw_input_contents.append(x.tobytes())
        calls.append((x, channel.unary_unary(INFER).future(request.SerializeToString(), timeout=20)))
    for number, (x, call) in enumerate(calls):
        answer = service_pb2.ModelInferResponse.FromString(call.result())
        assert (answer.id, answer.raw_output_contents[0]) == (str(number), x.tobytes())
