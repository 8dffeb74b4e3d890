"""What the two gRPC transports share. grpcio is imported here at the earliest: HTTP clients do without it."""

from __future__ import annotations

from typing import Any, TypeVar

from fastserve.client.calls import SERVICE, Call
from fastserve.client.failure import RESOURCE_EXHAUSTED, UNAVAILABLE, AttemptFailed, of_status
from fastserve.client.retry import Fate
from fastserve.client.settings import Settings
from fastserve.errors import FastserveError, InvalidArgument, from_code

T = TypeVar("T")


def grpc_module() -> Any:
    try:
        import grpc
    except ImportError:
        raise InvalidArgument("gRPC needs grpcio: pip install 'fastserve[client]'") from None
    return grpc


def channel_arguments(settings: Settings) -> tuple[str, Any, list[tuple[str, Any]]]:
    """(target, credentials or None, options)"""
    address, tls = settings.address, settings.tls
    options: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.enable_http_proxy", 0),  # what a program talks to is in its arguments, not in the environment
        ("grpc.use_local_subchannel_pool", 1),  # two clients have two connections
    ]
    if settings.keepalive is not None:
        options.append(("grpc.keepalive_time_ms", int(settings.keepalive * 1000)))
    target = f"unix:{address.unix_path}" if address.unix_path else address.authority
    if not address.tls:
        return target, None, options
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc_module().ssl_channel_credentials(
        tls.read(tls.ca), tls.read(tls.key), tls.read(tls.cert)
    )
    return target, credentials, options


def metadata(settings: Settings) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in settings.headers.items()]


def path(rpc: str) -> str:
    return f"/{SERVICE}/{rpc}"


def of_rpc_error(error: Any, where: str) -> AttemptFailed:
    """From grpc.RpcError (either API)."""
    code, message = int(error.code().value[0]), error.details() or error.code().name
    failed = of_status(code, message)
    if code == UNAVAILABLE and "connect to all addresses" in message:  # says nothing of who
        failed = AttemptFailed(from_code(code, f"{where}: {message.rpartition(': ')[2]}"), failed.fate)
    elif code == RESOURCE_EXHAUSTED and "message larger than max" in message:
        failed = AttemptFailed(from_code(code, f"{message} (max_message_bytes of the client)"), Fate.ANSWERED)
    return failed


def read(call: Call[T], data: bytes) -> T:
    return call.from_message(parse(f"{call.rpc}Response", data))


def parse(name: str, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    from fastserve import protos

    try:
        return protos.message_class(f"inference.{name}").FromString(data)
    except DecodeError as error:
        raise from_code(2, f"the server's answer is not a {name}: {error}") from None


def stream_item(data: bytes) -> Any:
    """Result, or the error that the server put into the stream."""
    from fastserve.client.infer_call import result_of

    message = parse("ModelStreamInferResponse", data)
    if message.error_message:
        return stream_error(message.error_message, message.infer_response.id)
    return result_of(message.infer_response)


def stream_error(text: str, request_id: str) -> FastserveError:
    """Streams carry the words of an error and not its code: UNKNOWN."""
    error = from_code(2, text)
    error.request_id = request_id
    return error
