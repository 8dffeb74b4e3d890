"""grpc.reflection.v1 and v1alpha: the descriptors of the services that this server answers. Registered always, answered
only with --grpc-reflection (GrpcRouter leaves them out otherwise)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastserve import protos
from fastserve.errors import FastserveError, InvalidArgument, NotFound
from fastserve.frontends.grpc_registry import RpcCall, registered, rpc
from fastserve.frontends.names import MAX_ECHO_CHARS


@rpc("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
async def info(requests: AsyncIterator[Any], call: RpcCall) -> AsyncIterator[Any]:
    async for request in requests:
        yield _answer(request, call)


@rpc("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
async def info_alpha(requests: AsyncIterator[Any], call: RpcCall) -> AsyncIterator[Any]:
    async for request in requests:
        yield _answer(request, call)


def _answer(request: Any, call: RpcCall) -> Any:
    response = call.response(valid_host=request.host, original_request=request)
    try:
        _fill(response, request)
    except FastserveError as error:
        response.error_response.error_code = error.code
        response.error_response.error_message = error.message
    return response


def _fill(response: Any, request: Any) -> None:
    kind = request.WhichOneof("message_request")
    if kind == "list_services":
        for name in sorted({path.rpartition("/")[0].removeprefix("/") for path in registered()}):
            response.list_services_response.service.add(name=name)
    elif kind == "file_by_filename":
        _add_files(response, _found(protos.file_named, request.file_by_filename))
    elif kind == "file_containing_symbol":
        _add_files(response, _found(protos.file_declaring, request.file_containing_symbol))
    elif kind == "all_extension_numbers_of_type":
        # Asked for to learn whether there is such a message at all.
        name = request.all_extension_numbers_of_type
        _found(protos.message_class, name)
        response.all_extension_numbers_response.base_type_name = name
    elif kind == "file_containing_extension":
        wanted = request.file_containing_extension
        raise NotFound(f"no extension {wanted.extension_number} of {wanted.containing_type[:MAX_ECHO_CHARS]}")
    else:
        raise InvalidArgument("message_request: nothing is asked for")


def _found(look_up: Any, name: str) -> Any:
    try:
        return look_up(name)
    except KeyError:
        raise NotFound(f"{name[:MAX_ECHO_CHARS]} is not known here") from None


def _add_files(response: Any, file: Any) -> None:
    """The file and all that it imports, each once."""
    files = {file.name: file}
    waiting = [file]
    while waiting:
        for needed in waiting.pop().dependencies:
            if needed.name not in files:
                files[needed.name] = needed
                waiting.append(needed)
    response.file_descriptor_response.file_descriptor_proto.extend(f.serialized_pb for f in files.values())
