"""gRPC's interop cases, told again on our own service with the grpcio client: ServerLive is the empty call, ModelInfer the
unary one, ModelStreamInfer the full-duplex one. (The gRPC repository: doc/interop-test-descriptions.md.)"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from duplex import Duplex, stub
from model_repository import SLOW_S, identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Infer, Refused, Tensor, fp32, grpc_call, grpc_infer, message

REQUEST_BYTES, RESPONSE_BYTES = 271_828, 314_159  # of the interop cases; our service answers what it was sent


def text_infer(size: int, id: str = "") -> Infer:
    """A tensor of about `size` bytes that can be compressed."""
    x = np.resize(np.arange(97, dtype=np.float32), (1, max(size // 4, 1)))
    return Infer("any_fp32", (Tensor("INPUT0", "FP32", x.shape, x.tobytes()),), id=id)


class CountingProxy:
    """Passes TCP connections on and counts them and their bytes, so that compression can be seen from outside."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.up = self.down = self.connections = 0
        self._target = (host.strip("[]"), int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            for source, sink, counter in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self._copy, args=(source, sink, counter), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, counter: str) -> None:
        try:
            while piece := source.recv(1 << 16):
                setattr(self, counter, getattr(self, counter) + len(piece))
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def counted(server: RunningServer) -> Iterator[tuple[CountingProxy, grpc.Channel]]:
    proxy = CountingProxy(server.grpc)
    with grpc.insecure_channel(proxy.address) as channel:
        grpc.channel_ready_future(channel).result(10)
        yield proxy, channel
    proxy.close()


# --- unary


def test_empty_unary(channel: grpc.Channel) -> None:
    assert stub(channel).ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live
    assert grpc_call(channel, SERVICE + "ServerLive", b"") == b"\x08\x01"


@pytest.mark.parametrize("size", [REQUEST_BYTES, RESPONSE_BYTES, 3 << 20])
def test_large_unary(channel: grpc.Channel, size: int) -> None:
    request = text_infer(size)
    assert grpc_infer(channel, request).raw_output_contents[0] == request.inputs[0].data


COMPRESSIONS = [grpc.Compression.Gzip, grpc.Compression.Deflate]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, *COMPRESSIONS])
def test_compressed_unary(counted: tuple[CountingProxy, grpc.Channel], compression: grpc.Compression) -> None:
    """A request that was compressed is answered compressed; one that was not is not."""
    proxy, channel = counted
    request = text_infer(RESPONSE_BYTES)
    answer = grpc_infer(channel, request, compression=compression)
    assert answer.raw_output_contents[0] == request.inputs[0].data
    if compression is grpc.Compression.NoCompression:
        assert proxy.up > RESPONSE_BYTES
        assert proxy.down > RESPONSE_BYTES
    else:
        assert proxy.up < RESPONSE_BYTES / 5
        assert proxy.down < RESPONSE_BYTES / 5


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_small_answers_are_not_compressed_but_read_all_the_same(
    channel: grpc.Channel, compression: grpc.Compression
) -> None:
    request = Infer("batch_fp32", (fp32("INPUT0", 1, 4),), id="small")
    assert grpc_infer(channel, request, compression=compression).id == "small"


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("method", ["ServerMetadata", "ModelConfig", "ModelStatistics"])
def test_compressed_calls_of_other_methods(
    channel: grpc.Channel, method: str, compression: grpc.Compression
) -> None:
    kwargs = {} if method == "ServerMetadata" else {"name": "batch_fp32"}
    request = getattr(service_pb2, method + "Request")(**kwargs)
    plain = grpc_call(channel, SERVICE + method, request.SerializeToString())
    packed = grpc_call(channel, SERVICE + method, request.SerializeToString(), compression=compression)
    assert isinstance(plain, bytes), plain
    assert packed == plain


def test_a_compressed_message_over_the_limit(channel: grpc.Channel) -> None:
    """4 MiB is the server's limit; compressed it is 20 KB."""
    request = Infer("any_fp32", (Tensor("INPUT0", "FP32", (1100, 1024), bytes(1100 * 1024 * 4)),))
    answer = grpc_infer(channel, request, compression=grpc.Compression.Gzip)
    assert isinstance(answer, Refused), "it was taken"
    assert answer.code == 8, answer
    assert "4194304" in answer.message
    request = Infer("any_fp32", (Tensor("INPUT0", "FP32", (1023, 1024), bytes(1023 * 1024 * 4)),))
    answer = grpc_infer(channel, request, compression=grpc.Compression.Gzip)
    assert answer.raw_output_contents[0] == request.inputs[0].data


# --- streams


def test_ping_pong(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    for number, size in enumerate((27_182, 8, 1828, 45_904)):
        request = text_infer(size, id=str(number))
        duplex.send(request)
        answer = duplex.receive()
        assert answer.error_message == ""
        assert answer.infer_response.id == str(number)
        assert answer.infer_response.raw_output_contents[0] == request.inputs[0].data
    duplex.half_close()
    assert list(duplex.call) == []
    assert duplex.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_ping_pong(
    counted: tuple[CountingProxy, grpc.Channel], compression: grpc.Compression
) -> None:
    proxy, channel = counted
    duplex = Duplex(channel, compression=compression)
    for size in (RESPONSE_BYTES, 8, RESPONSE_BYTES):
        request = text_infer(size)
        duplex.send(request)
        assert duplex.receive().infer_response.raw_output_contents[0] == request.inputs[0].data
    duplex.half_close()
    assert list(duplex.call) == []
    assert proxy.up < RESPONSE_BYTES / 3
    assert proxy.down < RESPONSE_BYTES / 3


def test_client_streaming_and_then_all_answers(channel: grpc.Channel) -> None:
    """Answers come while requests are still sent; the order is the requests'."""
    requests = [
        text_infer(size, id=str(number)) for number, size in enumerate((27_182, 8, 1828, 45_904) * 50)
    ]
    call = stub(channel).ModelStreamInfer((message(r) for r in requests), timeout=20)
    answers = [a.infer_response for a in call]
    assert [a.id for a in answers] == [r.id for r in requests]
    assert all(a.raw_output_contents[0] == r.inputs[0].data for a, r in zip(answers, requests, strict=True))
    assert call.code() is grpc.StatusCode.OK


def test_empty_stream(channel: grpc.Channel) -> None:
    call = stub(channel).ModelStreamInfer(iter(()), timeout=20)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK
    assert call.details() == ""


def test_cancel_after_begin(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    duplex.call.cancel()
    with pytest.raises(grpc.RpcError):
        duplex.receive()
    assert duplex.call.code() is grpc.StatusCode.CANCELLED
    duplex.half_close()
    assert grpc_infer(channel, text_infer(8, id="next")).id == "next"


def test_cancel_after_first_response(channel: grpc.Channel) -> None:
    duplex = Duplex(channel)
    duplex.send(text_infer(31_415))
    duplex.receive()
    duplex.call.cancel()
    with pytest.raises(grpc.RpcError):
        duplex.receive()
    assert duplex.call.code() is grpc.StatusCode.CANCELLED
    duplex.half_close()
    assert grpc_infer(channel, text_infer(8, id="next")).id == "next"


def test_timeout_on_sleeping_server(channel: grpc.Channel) -> None:
    started = time.monotonic()
    duplex = Duplex(channel, timeout=0.1)
    duplex.send(Infer("slow", (fp32("INPUT0", 1, 4),)))
    with pytest.raises(grpc.RpcError):
        duplex.receive()
    assert duplex.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < SLOW_S
    duplex.half_close()


# --- status


def test_status_code_and_message(channel: grpc.Channel) -> None:
    answer = grpc_infer(channel, Infer("nobody", (fp32("INPUT0", 1, 4),), id="7"))
    words = "[request id: 7] Request for unknown model: 'nobody' is not found"
    assert answer == Refused(grpc.StatusCode.NOT_FOUND.value[0], words)
    duplex = Duplex(channel, metadata=(("triton_grpc_error", "true"),))
    duplex.send(Infer("nobody", (fp32("INPUT0", 1, 4),), id="7"))
    with pytest.raises(grpc.RpcError):
        duplex.receive()
    assert duplex.call.code() is grpc.StatusCode.NOT_FOUND
    assert duplex.call.details() == words
    duplex.half_close()


SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n and 100 %25\x7f"


def test_special_status_message(channel: grpc.Channel) -> None:
    answer = grpc_infer(channel, Infer("nobody", (fp32("INPUT0", 1, 4),), id=SPECIAL))
    assert isinstance(answer, Refused)
    assert answer.message.startswith(f"[request id: {SPECIAL}] ")
    duplex = Duplex(channel)
    duplex.send(Infer("nobody", (fp32("INPUT0", 1, 4),), id=SPECIAL))
    answered = duplex.receive()
    assert answered.error_message == answer.message
    assert answered.infer_response.id == SPECIAL
    duplex.half_close()


@pytest.mark.parametrize(
    "path",
    [SERVICE + "UnimplementedCall", "/grpc.testing.UnimplementedService/UnimplementedCall"],
    ids=["method", "service"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_unimplemented(channel: grpc.Channel, path: str, streaming: bool) -> None:
    if streaming:
        call = channel.stream_stream(path)(iter((b"",)), timeout=20)
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
    else:
        answer = grpc_call(channel, path, b"")
        assert isinstance(answer, Refused)
        assert answer.code == 12
    assert grpc_infer(channel, text_infer(8, id="next")).id == "next"


def test_custom_metadata_does_no_harm(channel: grpc.Channel) -> None:
    metadata = (("x-grpc-test-echo-initial", "test_initial_metadata_value"), ("x-bin-bin", b"\xab\xab\xab"))
    answer = grpc_infer(channel, text_infer(8, id="next"), metadata=metadata)
    assert answer.id == "next"


PINGING = [
    ("grpc.keepalive_time_ms", 1000),
    # Of a busy machine; the connection must not end for another reason.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
]


@pytest.mark.parametrize("unary", [True, False])
def test_keepalive_pings_are_no_flood(server: RunningServer, unary: bool) -> None:
    """A client that pings every second (less than gRPC lets it by default) for as long as a test may take keeps its
    connection. (Connections are counted: a channel's own words about its state come late, and from another thread.)"""
    proxy = CountingProxy(server.grpc)
    with grpc.insecure_channel(proxy.address, PINGING) as pinging:
        duplex = None if unary else Duplex(pinging)

        def ask(word: str) -> None:
            if duplex is None:
                assert grpc_infer(pinging, text_infer(8, id=word)).id == word
            else:
                duplex.send(text_infer(8, id=word))
                assert duplex.receive().infer_response.id == word

        ask("first")
        quiet = proxy.up
        time.sleep(3.5)
        assert proxy.up >= quiet + 2 * (9 + 8)  # pings: a frame's header and 8 bytes each
        ask("last")
        if duplex is not None:
            duplex.half_close()
    proxy.close()
    assert proxy.connections == 1


def test_settings_of_the_server(tmp_path: Path) -> None:
    """--compress-grpc-answers: also for clients that only read it. --max-stream-requests: the rest waits, and is answered."""
    repository = tmp_path / "models"
    identity(repository, "any_fp32", [("FP32", [-1, -1])])
    settings = ("--compress-grpc-answers", "true", "--max-stream-requests", "1")
    with RunningServer(repository, tmp_path, *settings) as running:
        proxy = CountingProxy(running.grpc)
        with grpc.insecure_channel(proxy.address) as channel:
            request = text_infer(RESPONSE_BYTES)
            assert grpc_infer(channel, request).raw_output_contents[0] == request.inputs[0].data
            assert proxy.up > RESPONSE_BYTES
            assert proxy.down < RESPONSE_BYTES / 5
            requests = [text_infer(8, id=str(number)) for number in range(20)]
            answers = stub(channel).ModelStreamInfer((message(r) for r in requests), timeout=20)
            assert [a.infer_response.id for a in answers] == [r.id for r in requests]
        proxy.close()
