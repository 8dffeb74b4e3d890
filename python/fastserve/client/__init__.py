"""A client of any KServe v2 / Triton server: gRPC and HTTP, blocking and asyncio, numpy in and out.

    from fastserve.client import Client

    with Client("grpc://127.0.0.1:8001") as client:            # or http://127.0.0.1:8000, grpcs://, https://, unix:/path
        result = client.infer("digits", {"image": image})       # image: a numpy array
        print(result["scores"], result.model_version)

asyncio:

    async with AsyncClient("grpc://127.0.0.1:8001") as client:
        result = await client.infer("digits", image, timeout=0.5)

Errors (of fastserve.errors) carry code, message and the offending field as the server names it:

    try:
        client.infer("digits", {"image": image[:, :3]})
    except fastserve.InvalidArgument as error:
        print(error.field)                                       # inputs["image"].shape[1]

Strings (BYTES) go in as arrays of str or bytes and come out as object arrays of bytes. BF16 comes out as
ml_dtypes.bfloat16 where that package is installed, else as its bits in uint16; `Input(array, "BF16")` sends it.

A request is sent again only when the server cannot have run it (connection refused, queue full, stream refused), or when
`idempotent=True` says that twice does no harm; see `Retry`. HTTP clients keep up to 16 connections alive, a gRPC client
has one; answers are limited to 2 GiB - 1 (`max_message_bytes`).

Light: no engine is loaded; HTTP needs numpy only, gRPC the extra [client] (grpcio, protobuf). tritonclient may live in
the same process.
"""

from fastserve.client.async_client import AsyncClient
from fastserve.client.client import Client
from fastserve.client.core import Request
from fastserve.client.result import (
    IndexEntry,
    ModelMetadata,
    ModelStatistics,
    Result,
    ServerMetadata,
    TensorMetadata,
    Total,
)
from fastserve.client.retry import Retry
from fastserve.client.tensors import Input, Output
from fastserve.errors import FastserveError

__all__ = [
    "AsyncClient",
    "Client",
    "FastserveError",
    "IndexEntry",
    "Input",
    "ModelMetadata",
    "ModelStatistics",
    "Output",
    "Request",
    "Result",
    "Retry",
    "ServerMetadata",
    "TensorMetadata",
    "Total",
]
