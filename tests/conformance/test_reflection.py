"""gRPC server reflection with grpcio's own client, and that it is off unless asked for."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from model_repository import identity
from running_server import RunningServer

SERVICES = {
    "fastserve.ModelLabels",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
}
VERSIONS = ("v1", "v1alpha")


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def reflecting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("reflecting")
    identity(folder / "models", "echo", [("FP32", [4])])
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    with (
        RunningServer(folder / "models", folder, "--grpc-reflection", "--io-threads", threads) as running,
        grpc.insecure_channel(running.grpc) as channel,
    ):
        yield channel


def ask(channel: Any, version: str, *questions: Any) -> list[Any]:
    """The messages of v1 and v1alpha are the same on the wire."""
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return list(call(iter(questions), timeout=20))


def question(**fields: Any) -> Any:
    return reflection_pb2.ServerReflectionRequest(host="h", **fields)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_services(reflecting: Any, version: str) -> None:
    (answer,) = ask(reflecting, version, question(list_services="*"))
    assert {service.name for service in answer.list_services_response.service} == SERVICES
    assert answer.valid_host == "h"
    assert answer.original_request == question(list_services="*")


def test_grpcio_s_client_finds_every_method(reflecting: Any) -> None:
    database = ProtoReflectionDescriptorDatabase(reflecting)
    assert set(database.get_services()) == SERVICES
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    methods = {method.name: method for method in service.methods}
    assert {"ModelInfer", "ModelStreamInfer", "RepositoryIndex", "TraceSetting"} <= set(methods)
    assert methods["ModelInfer"].input_type.fields_by_name["raw_input_contents"].number == 7
    assert methods["ModelConfig"].output_type.fields_by_name["config"].message_type.full_name == (
        "inference.ModelConfig"  # of another file
    )
    health = {m.name: m for m in pool.FindServiceByName("grpc.health.v1.Health").methods}
    assert health["Watch"].server_streaming


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.ModelInferRequest.raw_input_contents",
    ],
)
def test_a_file_comes_with_what_it_imports(reflecting: Any, version: str, symbol: str) -> None:
    (answer,) = ask(reflecting, version, question(file_containing_symbol=symbol))
    files = answer.file_descriptor_response.file_descriptor_proto
    assert len(files) == 2
    assert b"oip_grpc_service.proto" in files[0]
    assert b"model_config.proto" in files[1]
    (by_name,) = ask(reflecting, version, question(file_by_filename="health.proto"))
    assert len(by_name.file_descriptor_response.file_descriptor_proto) == 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"file_containing_symbol": "no.such.Symbol"}, 5),
        ({"file_containing_symbol": "inference.GRPCInferenceService.NoSuchMethod"}, 5),
        ({"file_containing_symbol": "inference.ModelInferRequest.no_such_field"}, 5),
        ({"file_containing_symbol": ""}, 5),
        ({"file_by_filename": "../health.proto"}, 5),
        ({"all_extension_numbers_of_type": "no.such.Message"}, 5),
        (
            {
                "file_containing_extension": reflection_pb2.ExtensionRequest(
                    containing_type="inference.ModelConfig", extension_number=1
                )
            },
            5,
        ),
        ({}, 3),
    ],
)
def test_questions_without_an_answer(reflecting: Any, fields: dict[str, Any], code: int) -> None:
    (answer,) = ask(reflecting, "v1", question(**fields))
    assert answer.error_response.error_code == code
    assert answer.error_response.error_message


def test_there_are_no_extensions(reflecting: Any) -> None:
    (answer,) = ask(reflecting, "v1", question(all_extension_numbers_of_type="inference.ModelConfig"))
    assert answer.all_extension_numbers_response.base_type_name == "inference.ModelConfig"
    assert list(answer.all_extension_numbers_response.extension_number) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_it_is_off_unless_asked_for(channel: grpc.Channel, version: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(channel, version, question(list_services=""))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f"unknown service grpc.reflection.{version}.ServerReflection"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_conversation_over_one_open_stream(reflecting: Any, version: str) -> None:
    """As grpcurl has it: each question waits for the answer to the one before, and the stream stays open."""
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = reflecting.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )(iter(questions.get, None), timeout=20)
    for symbol in ("inference.GRPCInferenceService", "grpc.health.v1.Health", "inference.ModelInferRequest"):
        questions.put(question(file_containing_symbol=symbol))
        assert next(call).file_descriptor_response.file_descriptor_proto
    questions.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_no_question_is_no_answer(reflecting: Any) -> None:
    assert ask(reflecting, "v1") == []


def test_more_questions_than_may_wait(reflecting: Any) -> None:
    many = [question(file_by_filename=f"no-{i}.proto") for i in range(500)]
    answers = ask(reflecting, "v1", *many)
    assert [a.original_request.file_by_filename for a in answers] == [q.file_by_filename for q in many]


def test_a_stream_left_open_ends_with_its_deadline(reflecting: Any) -> None:
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    call = reflecting.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(
        iter(questions.get, None), timeout=0.3
    )
    with pytest.raises(grpc.RpcError) as error:
        next(call)
    questions.put(None)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_message_that_is_none(reflecting: Any) -> None:
    call = reflecting.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    with pytest.raises(grpc.RpcError) as error:
        list(call(iter([b"\xff\xff"]), timeout=20))
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
