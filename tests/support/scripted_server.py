"""An HTTP server that does what a test says, request by request; and a gRPC server made of functions."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

from fastserve import protos

Answer = Callable[["Exchange"], None]


class Exchange:
    """One request as it arrived, and the socket to answer on."""

    def __init__(self, connection: socket.socket, head: str, body: bytes, number: int) -> None:
        self.connection, self.head, self.body, self.number = connection, head, body, number
        self.method, self.path, _ = head.split("\r\n")[0].split(" ")
        fields = (line.partition(": ") for line in head.split("\r\n")[1:])
        self.headers = {name.lower(): value for name, _, value in fields}

    @property
    def json(self) -> Any:
        return json.loads(
            self.body[: int(self.headers.get("inference-header-content-length", len(self.body)))]
        )

    def answer(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode() + content)

    def close(self) -> None:
        self.connection.close()

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.connection.close()


class ScriptedServer:
    """Answers the n-th request with the n-th answer, the last one again and again. `accepted` counts connections."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None, unix: str = "") -> None:
        self._answers = answers
        self._tls = tls
        if unix:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(unix)
            self._listener.listen()
            self.url = f"http+unix:{unix}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            scheme = "https" if tls else "http"
            self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.exchanges: list[Exchange] = []
        self.accepted = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def paths(self) -> list[str]:
        return [exchange.path for exchange in self.exchanges]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(1 << 20)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                text = head.decode()
                length = int(
                    next((x[16:] for x in text.split("\r\n") if x.startswith("Content-Length: ")), "0")
                )
                while len(data) < length:
                    data += connection.recv(1 << 20)
                with self._lock:
                    number = len(self.exchanges)
                    exchange = Exchange(connection, text, data[:length], number)
                    self.exchanges.append(exchange)
                data = data[length:]
                self._answers[min(number, len(self._answers) - 1)](exchange)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.close()


def echo(exchange: Exchange) -> None:
    """Metadata of a model `m` with an input `x`; inference answers its inputs in the form they came in."""
    if exchange.path == "/v2":
        exchange.answer(200, {"name": "s", "version": "1", "extensions": ["binary_tensor_data"]})
    elif exchange.method == "GET":
        described = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
        exchange.answer(
            200, {"name": "m", "versions": ["1"], "platform": "p", "inputs": described, "outputs": []}
        )
    else:
        request = exchange.json
        answer = {
            "model_name": "m",
            "model_version": "1",
            "id": request.get("id", ""),
            "outputs": request["inputs"],
        }
        head = json.dumps(answer).encode()
        binary = exchange.body[
            int(exchange.headers.get("inference-header-content-length", len(exchange.body))) :
        ]
        more = {"Inference_Header_Content_Length": str(len(head))} if binary else {}
        exchange.answer(200, head + binary, **more)


SERVICE = "inference.GRPCInferenceService"


@contextlib.contextmanager
def grpc_server(credentials: Any = None, **methods: Callable[[Any, Any], Any]) -> Iterator[str]:
    """`methods`: RPC -> function(request, context) -> response; ModelStreamInfer gets and gives iterators. The
    address."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            rpc = details.method.rpartition("/")[2]
            if rpc not in methods:
                return None
            request = "ModelInferRequest" if rpc == "ModelStreamInfer" else f"{rpc}Request"
            kind = (
                grpc.stream_stream_rpc_method_handler
                if rpc == "ModelStreamInfer"
                else (grpc.unary_unary_rpc_method_handler)
            )
            return kind(
                methods[rpc],
                request_deserializer=protos.message_class(f"inference.{request}").FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )

    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Handler()])
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"{'grpcs' if credentials else 'grpc'}://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def message(name: str, /, **fields: Any) -> Any:
    return protos.message_class(f"inference.{name}")(**fields)


def echoed(request: Any, context: Any = None) -> Any:
    response = message(
        "ModelInferResponse",
        model_name=request.model_name,
        model_version=request.model_version or "1",
        id=request.id,
    )
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(raw)
    for name, value in request.parameters.items():
        response.parameters[name].CopyFrom(value)
    return response
