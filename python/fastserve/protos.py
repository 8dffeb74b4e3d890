"""The wire messages of protos/, as Python classes built at run time.

The package carries one data file, protos.binpb: a serialized FileDescriptorSet that CMake makes from
protos/*.proto. It is loaded into a pool of its own, so that another copy of the same package names in the process
(tritonclient's `inference`, grpcio-health-checking's `grpc.health.v1`) does not collide with ours.

A leaf: imports nothing of fastserve. Needs the extra [server] (protobuf).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import fastserve

FILE_NAME = "protos.binpb"


def descriptor_set() -> bytes:
    """The serialized FileDescriptorSet; dependencies come before the files that need them."""
    # Several folders when the package is installed editable: sources in one, what CMake built in another.
    for folder in fastserve.__path__:
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path.read_bytes()
    return _compile_source_tree()


def _compile_source_tree() -> bytes:
    """Only for work in a checkout that has not been built: protoc on ../../protos."""
    sources = Path(__file__).resolve().parents[2] / "protos"
    files = sorted(str(path.relative_to(sources)) for path in sources.rglob("*.proto"))
    protoc = shutil.which("protoc")
    if not files or protoc is None:
        raise RuntimeError(
            f"{FILE_NAME} is missing from the installed package; build or install fastserve again"
        )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / FILE_NAME
        subprocess.run(
            [protoc, f"-I{sources}", "--include_imports", f"--descriptor_set_out={out}", *files], check=True
        )
        return out.read_bytes()


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message_class(full_name: str) -> type[Any]:
    """The class of a message by its full name ("inference.ModelConfig"). KeyError: no such message."""
    from google.protobuf import message_factory

    cls: type[Any] = message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))
    return cls


def enum_type(full_name: str) -> Any:
    """The EnumDescriptor by its full name, for instance `inference.DataType`. KeyError: no such enum."""
    return _pool().FindEnumTypeByName(full_name)


def method(path: str) -> Any:
    """The MethodDescriptor of a gRPC path ("/inference.GRPCInferenceService/ServerLive"). KeyError: no such method."""
    return _pool().FindMethodByName(path.strip("/").replace("/", "."))


def file_named(name: str) -> Any:
    """The FileDescriptor of a .proto file ("health.proto"). KeyError: no such file."""
    return _pool().FindFileByName(name)


def file_declaring(symbol: str) -> Any:
    """The FileDescriptor that declares a service, method, message, enum or field, by full name. KeyError: nobody does."""
    try:
        return _pool().FindFileContainingSymbol(symbol)
    except KeyError:  # the pool finds no members of services and messages by themselves
        owner, _, member = symbol.rpartition(".")
        return _member(owner, member).file


def _member(owner: str, member: str) -> Any:
    """A descriptor with `file`: that of the service or message `owner`, which has `member`."""
    try:
        service = _pool().FindServiceByName(owner)
    except KeyError:
        message = _pool().FindMessageTypeByName(owner)
        return message.fields_by_name[member].containing_type
    return service.methods_by_name[member].containing_service
