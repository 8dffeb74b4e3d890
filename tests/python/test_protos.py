"""protos/ against the descriptors that existing clients carry: every name, number, type and method must be the same.

Ours are read from protoc's output as plain data and never registered: one process cannot hold two definitions of
``inference.ModelInferRequest``.
"""

from __future__ import annotations

import importlib
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

PROTOS = Path(__file__).resolve().parents[2] / "protos"
FIELD = descriptor_pb2.FieldDescriptorProto


def ours(name: str) -> descriptor_pb2.FileDescriptorProto:
    protoc = shutil.which("protoc")
    assert protoc is not None, "install protobuf-compiler"
    out = subprocess.run(
        [protoc, f"-I{PROTOS}", "--descriptor_set_out=/dev/stdout", str(PROTOS / name)],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(out).file
    return file


def theirs(module: Any) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def field_facts(
    message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto
) -> dict[str, Any]:
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    return {
        "number": field.number,
        "type": FIELD.Type.Name(field.type),
        "label": FIELD.Label.Name(field.label),
        "type_name": field.type_name,
        "oneof": oneof,
        "optional": field.proto3_optional,
        "packed": field.options.packed if field.options.HasField("packed") else None,
    }


def enum_facts(enum: descriptor_pb2.EnumDescriptorProto) -> dict[str, int]:
    return {value.name: value.number for value in enum.value}


def facts(file: descriptor_pb2.FileDescriptorProto) -> dict[str, Any]:
    """Everything that the wire or generated code depends on, keyed by full name; order does not count."""
    found: dict[str, Any] = {"package": file.package, "syntax": file.syntax}

    def walk(message: descriptor_pb2.DescriptorProto, scope: str) -> None:
        name = f"{scope}.{message.name}"
        found[f"message {name}"] = {"map entry": message.options.map_entry}
        for field in message.field:
            found[f"field {name}.{field.name}"] = field_facts(message, field)
        for nested in message.nested_type:
            walk(nested, name)
        for enum in message.enum_type:
            found[f"enum {name}.{enum.name}"] = enum_facts(enum)

    for message in file.message_type:
        walk(message, file.package)
    for enum in file.enum_type:
        found[f"enum {file.package}.{enum.name}"] = enum_facts(enum)
    for service in file.service:
        for method in service.method:
            found[f"rpc {file.package}.{service.name}/{method.name}"] = {
                "input": method.input_type,
                "output": method.output_type,
                "client streams": method.client_streaming,
                "server streams": method.server_streaming,
            }
    return found


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    differing = sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))
    return [f"{key}: ours {left.get(key)}, theirs {right.get(key)}" for key in differing]


CASES = [
    ("oip_grpc_service.proto", "tritonclient.grpc.service_pb2"),
    ("model_config.proto", "tritonclient.grpc.model_config_pb2"),
    ("health.proto", "grpc_health.v1.health_pb2"),
    ("reflection_v1alpha.proto", "grpc_reflection.v1alpha.reflection_pb2"),
]


# KServe's form of the protocol has this field, tritonclient's has not; who does not know it skips it.
KSERVES = "inference.ModelMetadataResponse.properties", "inference.ModelMetadataResponse.PropertiesEntry"


@pytest.mark.parametrize(("name", "module"), CASES)
def test_equal_to_the_clients_descriptors(name: str, module: str) -> None:
    found = differences(facts(ours(name)), facts(theirs(importlib.import_module(module))))
    assert [line for line in found if not line.split(maxsplit=1)[1].startswith(KSERVES)] == []


def test_the_versions_of_reflection_differ_in_their_package_alone() -> None:
    older = ours("reflection_v1alpha.proto").SerializeToString().replace(b".v1alpha", b".v1")
    newer = ours("reflection_v1.proto").SerializeToString()
    assert older != newer  # other lengths, or nothing was replaced
    strip = [
        repr(facts(ours(f"reflection_{version}.proto"))).replace(f"reflection.{version}.", "")
        for version in ("v1", "v1alpha")
    ]
    assert strip[0].replace("'grpc.reflection.v1'", "") == strip[1].replace("'grpc.reflection.v1alpha'", "")


def test_the_comparison_sees_a_changed_field() -> None:
    file = ours("health.proto")
    changed = descriptor_pb2.FileDescriptorProto()
    changed.CopyFrom(file)
    changed.message_type[0].field[0].number = 7
    assert len(differences(facts(file), facts(changed))) == 1


def test_every_message_and_rpc_says_what_it_is() -> None:
    """Our own words stand in front of each message, enum and RPC."""
    bare = []
    for path in sorted(PROTOS.glob("*.proto")):
        lines = path.read_text().splitlines()
        for before, line in itertools.pairwise(lines):
            words = line.split()
            if (
                words
                and words[0] in {"message", "enum", "rpc", "service"}
                and not before.strip().startswith("//")
            ):
                bare.append(f"{path.name}: {line.strip()}")
    assert bare == []
