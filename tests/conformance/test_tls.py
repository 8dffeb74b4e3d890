"""TLS and mTLS with real clients, over both drivers: tritonclient in its four forms, grpcio, curl, openssl, and Python's ssl
where a client has to misbehave."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from certificates import Authority, Issued, install
from model_repository import identity
from running_server import RunningServer

LARGE = (3, 224, 224)  # FP32: 600 KB
TIMEOUT_S = 10.0
SLOW_S = 0.5
HANDSHAKE_S = 1.0  # --tls-handshake-timeout of the server under test


class Scene(NamedTuple):
    server: RunningServer
    authority: Authority  # of the server
    clients: Authority  # whose certificates the server takes, with mTLS
    files: Path  # folder of the server's certificate and key

    @property
    def ca(self) -> str:
        return str(self.authority.pem)

    def trust(self, own: Issued | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if own:
            context.load_cert_chain(*own)
        if alpn:
            context.set_alpn_protocols(alpn)
        return context

    def connect(self, address: str | None = None, **trust: Any) -> ssl.SSLSocket:
        """To the REST port."""
        plain = plain_socket(address or self.server.http)
        return self.trust(**trust).wrap_socket(plain, server_hostname="localhost")


def plain_socket(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=TIMEOUT_S)


def scene(folder: Path, driver: str, *, mutual: bool) -> Iterator[Scene]:
    authority, clients = Authority(folder / "ca", "servers"), Authority(folder / "ca", "clients")
    installed = install(authority.issue("first"), folder / "mounted")
    identity(folder / "models", "any", [("FP32", [-1, -1, -1])])
    identity(folder / "models", "slow", [("FP32", [1])], delay_s=SLOW_S)
    arguments = ["--tls-cert", str(installed.cert), "--tls-key", str(installed.key)]
    arguments += ["--tls-handshake-timeout", str(HANDSHAKE_S), "--io-threads", driver]
    arguments += ["--tls-client-ca", str(clients.pem)] if mutual else []
    with RunningServer(folder / "models", folder, *arguments) as server:
        yield Scene(server, authority, clients, installed.cert.parent)
        server.signal()
        assert server.wait() == 0, server.log()


@pytest.fixture(scope="module", params=["2", "0"], ids=["io_threads", "uvloop"])
def tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from scene(tmp_path_factory.mktemp("tls"), request.param, mutual=False)


@pytest.fixture(scope="module", params=["2", "0"], ids=["io_threads", "uvloop"])
def mutual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    yield from scene(tmp_path_factory.mktemp("mtls"), request.param, mutual=True)


def eventually(condition: Callable[[], Any], seconds: float = TIMEOUT_S) -> Any:
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.02)
    return value


# --- inference with each client; returns what the server said


def _tensor(module: Any, value: Any) -> list[Any]:
    tensor = module.InferInput("INPUT0", list(value.shape), "FP32")
    tensor.set_data_from_numpy(value)
    return [tensor]


def _grpc_options(at: Scene, own: Issued | None) -> dict[str, Any]:
    files = {"private_key": str(own.key), "certificate_chain": str(own.cert)} if own else {}
    return {"ssl": True, "root_certificates": at.ca, **files}


def by_grpc(at: Scene, own: Issued | None, value: Any) -> Any:
    with tritonclient.grpc.InferenceServerClient(at.server.grpc, **_grpc_options(at, own)) as client:
        return client.infer("any", _tensor(tritonclient.grpc, value)).as_numpy("OUTPUT0")


def by_grpc_aio(at: Scene, own: Issued | None, value: Any) -> Any:
    async def run() -> Any:
        options = _grpc_options(at, own)
        async with tritonclient.grpc.aio.InferenceServerClient(at.server.grpc, **options) as client:
            return (await client.infer("any", _tensor(tritonclient.grpc, value))).as_numpy("OUTPUT0")

    return asyncio.run(run())


def by_http(at: Scene, own: Issued | None, value: Any) -> Any:
    options = {"ca_certs": at.ca}
    options |= {"certfile": str(own.cert), "keyfile": str(own.key)} if own else {}
    with tritonclient.http.InferenceServerClient(
        at.server.http, ssl=True, ssl_options=options, network_timeout=TIMEOUT_S
    ) as client:
        return client.infer("any", _tensor(tritonclient.http, value)).as_numpy("OUTPUT0")


def by_http_aio(at: Scene, own: Issued | None, value: Any) -> Any:
    async def run() -> Any:
        async with tritonclient.http.aio.InferenceServerClient(
            at.server.http, ssl=True, ssl_context=at.trust(own)
        ) as client:
            return (await client.infer("any", _tensor(tritonclient.http, value))).as_numpy("OUTPUT0")

    return asyncio.run(run())


CLIENTS = [by_grpc, by_grpc_aio, by_http, by_http_aio]
clients = pytest.mark.parametrize("infer", CLIENTS, ids=[c.__name__.removeprefix("by_") for c in CLIENTS])


@clients
def test_inference(tls: Scene, infer: Any) -> None:
    value = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    assert (infer(tls, None, value) == value).all()


@clients
def test_large_tensors_both_ways(tls: Scene, infer: Any) -> None:
    value = np.random.default_rng(1).standard_normal(LARGE, dtype=np.float32)
    assert (infer(tls, None, value) == value).all()


@clients
def test_mutual_tls_takes_the_right_certificate(mutual: Scene, infer: Any) -> None:
    value = np.ones((1, 2, 3), np.float32)
    assert (infer(mutual, mutual.clients.issue("good"), value) == value).all()


REFUSED = {
    "none": ("no_client_certificate", "the client shows no certificate"),
    "expired": ("client_certificate", "client certificate CN=expired: certificate has expired"),
    "stranger": ("client_certificate", "client certificate CN=stranger: "),
    "server_only": (
        "client_certificate",
        "client certificate CN=server_only: unsuitable certificate purpose",
    ),
}


def _own(at: Scene, who: str) -> Issued | None:
    if who == "stranger":
        return at.authority.issue(who)
    if who == "server_only":
        return at.clients.issue(who, usage="serverAuth")
    return None if who == "none" else at.clients.issue(who, days=-1)


@pytest.mark.parametrize("who", REFUSED)
@clients
def test_mutual_tls_refuses_others(mutual: Scene, infer: Any, who: str) -> None:
    reason, _ = REFUSED[who]
    name = f'fastserve_tls_failures_total{{reason="{reason}"}}'
    before = mutual.server.scrape()[name]
    with pytest.raises(Exception) as error:  # each client has its own
        infer(mutual, _own(mutual, who), np.ones((1, 1, 1), np.float32))
    assert not isinstance(error.value, AssertionError)
    assert mutual.server.scrape()[name] > before


@pytest.mark.parametrize("who", REFUSED)
def test_the_log_says_why_a_client_was_refused(mutual: Scene, who: str) -> None:
    own = _own(mutual, who)

    def logged() -> bool:  # one line a second at most
        try:
            with mutual.connect(own=own) as client:
                client.recv(1)
        except OSError:
            pass
        time.sleep(0.3)
        return REFUSED[who][1] in mutual.server.log()

    eventually(logged)


def test_an_alert_tells_the_client_why(mutual: Scene) -> None:
    with mutual.connect() as client, pytest.raises(ssl.SSLError, match="certificate required"):
        client.recv(1)


# --- versions, ciphers, protocols


def s_client(address: str, *arguments: str) -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", address, *arguments],
        input="",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("version", "spoken"), [("-tls1", False), ("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)]
)
@pytest.mark.parametrize("port", ["grpc", "http"])
def test_versions(tls: Scene, port: str, version: str, spoken: bool) -> None:
    arguments = [version, "-alpn", "h2", "-CAfile", tls.ca]
    arguments += [] if spoken else ["-cipher", "DEFAULT@SECLEVEL=0"]
    said = s_client(tls.server.addresses[port], *arguments)
    assert ("Verify return code: 0 (ok)" in said and "ALPN protocol: h2" in said) == spoken, said
    assert ("alert protocol version" in said) != spoken


@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "AES128-GCM-SHA256"])
def test_ciphers_without_forward_secrecy_or_aead_are_refused(tls: Scene, cipher: str) -> None:
    said = s_client(tls.server.http, "-tls1_2", "-cipher", f"{cipher}@SECLEVEL=0")
    assert "alert handshake failure" in said, said


def test_no_renegotiation_no_tickets_no_compression(tls: Scene) -> None:
    said = s_client(tls.server.http, "-tls1_2")
    assert "Compression: NONE" in said
    assert "TLS session ticket" not in said
    assert "Session-ID: \n" in said


@pytest.mark.parametrize(
    ("port", "offered", "chosen"),
    [
        ("grpc", ("h2",), "h2"),
        ("grpc", ("http/1.1", "h2"), "h2"),
        ("grpc", ("http/1.1",), "refused"),
        ("grpc", (), "refused"),
        ("http", ("h2", "http/1.1"), "h2"),
        ("http", ("http/1.1",), "http/1.1"),
        ("http", (), None),
        ("http", ("spdy/3",), "refused"),
    ],
)
def test_protocols_by_alpn(tls: Scene, port: str, offered: tuple[str, ...], chosen: str | None) -> None:
    address = tls.server.addresses[port]
    if chosen == "refused":
        with pytest.raises(ssl.SSLError, match=r"(?i)no application protocol"):
            tls.connect(address, alpn=offered)
        return
    with tls.connect(address, alpn=offered) as client:
        assert client.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(tls: Scene, version: str) -> None:
    answer = subprocess.run(
        [
            "curl",
            "-sS",
            version,
            "--cacert",
            tls.ca,
            "-w",
            " %{http_version}",
            f"https://{tls.server.http}/v2",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    ).stdout
    body, _, spoken = answer.rpartition(" ")
    assert json.loads(body)["name"] == "fastserve"
    assert spoken == version.removeprefix("--http")


def test_the_log_has_a_curl_that_works(tls: Scene) -> None:
    ready = next(r for r in tls.server.log_records() if r["message"].startswith("ready; try: "))
    command = ready["message"].removeprefix("ready; try: ")
    assert "https://" in command
    assert "--cacert" in command
    done = subprocess.run(command, shell=True, check=True, capture_output=True, timeout=TIMEOUT_S)
    assert json.loads(done.stdout)["model_name" if "/infer" in command else "name"] == "any"


def test_cold_rpcs(tls: Scene) -> None:
    with tritonclient.grpc.InferenceServerClient(
        tls.server.grpc, ssl=True, root_certificates=tls.ca
    ) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("any").name == "any"


def test_a_client_that_does_not_trust_us(tls: Scene) -> None:
    credentials = grpc.ssl_channel_credentials(tls.clients.pem.read_bytes())
    with grpc.secure_channel(tls.server.grpc, credentials) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=TIMEOUT_S)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    refused = 'fastserve_tls_failures_total{reason="refused_by_client"}'
    before = tls.server.scrape()[refused]
    stranger = ssl.create_default_context(cafile=str(tls.clients.pem))
    stranger.set_alpn_protocols(["h2"])
    client = plain_socket(tls.server.grpc)
    with client.dup():  # a close with unread bytes would be a reset and destroy the alert, as gRPC does
        with pytest.raises(ssl.SSLError, match="verify failed"):
            stranger.wrap_socket(client, server_hostname="localhost")
        eventually(lambda: tls.server.scrape()[refused] > before)


# --- no TLS where there should be, and the other way round


def read_all(sock: socket.socket) -> bytes:
    found = b""
    while piece := sock.recv(65536):
        found += piece
    return found


@pytest.mark.parametrize("port", ["grpc", "http"])
@pytest.mark.parametrize("body_bytes", [0, 1 << 20])
def test_plain_http_is_told_to_use_https(tls: Scene, port: str, body_bytes: int) -> None:
    with plain_socket(tls.server.addresses[port]) as client:
        client.sendall(b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % body_bytes)
        client.sendall(b"x" * body_bytes)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b"this port speaks TLS, use https://\n"


def test_plain_grpc_gets_a_goaway_with_the_reason(tls: Scene) -> None:
    with plain_socket(tls.server.grpc) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        said = read_all(client)
    assert said.endswith(b"this port speaks TLS")
    with grpc.insecure_channel(tls.server.grpc) as channel, pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=3)
    assert error.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_tls_on_a_plain_port_is_a_clean_error(server: RunningServer, port: str) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with plain_socket(server.addresses[port]) as client, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(client)
    assert tritonclient.http.InferenceServerClient(server.http).is_server_live()


def test_metrics_stay_plain(tls: Scene) -> None:
    assert tls.server.scrape()["fastserve_tls_handshakes_total"] >= 0


# --- clients that go away or stop


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_a_handshake_has_a_time_limit(tls: Scene, port: str) -> None:
    with plain_socket(tls.server.addresses[port]) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01")
        started = time.monotonic()
        assert read_all(client) == b""
        assert HANDSHAKE_S * 0.5 < time.monotonic() - started < HANDSHAKE_S + 3
    assert tls.server.scrape()['fastserve_tls_failures_total{reason="timeout"}'] > 0


def test_a_half_closed_client_gets_its_answer(tls: Scene) -> None:
    """close_notify behind the request; the answer still comes, and our close_notify behind it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tunnel = tls.trust().wrap_bio(incoming, outgoing, server_hostname="localhost")

    def step(action: Callable[[], Any]) -> Any:
        while True:
            try:
                done = action()
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                received = client.recv(65536)
                incoming.write(received) if received else incoming.write_eof()
            else:
                client.sendall(outgoing.read())
                return done

    with plain_socket(tls.server.http) as client:
        step(tunnel.do_handshake)
        body = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[7]}]}'
        tunnel.write(
            b"POST /v2/models/slow/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        tunnel.write(body)
        client.sendall(outgoing.read())
        time.sleep(SLOW_S / 2)  # it runs: what still waits is cancelled when its client leaves
        with pytest.raises(ssl.SSLWantReadError):
            tunnel.unwrap()  # says close_notify
        answer = b""
        while True:
            try:
                piece = step(lambda: tunnel.read(65536))
            except ssl.SSLZeroReturnError:
                break
            if not piece:
                break
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"[7.0]" in answer or b"[7]" in answer


def test_truncated_connections_are_noticed(tls: Scene) -> None:
    before = tls.server.scrape()["fastserve_tls_truncated_total"]
    with tls.connect() as client:
        client.sendall(b"POST /v2/models/any/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        client.shutdown(
            socket.SHUT_WR
        )  # of the socket, without close_notify; Python reads plain from here on
        assert len(read_all(client)) < 100  # our close_notify
    eventually(lambda: tls.server.scrape()["fastserve_tls_truncated_total"] > before)


def test_a_tampered_record_ends_the_connection(tls: Scene) -> None:
    before = tls.server.scrape()['fastserve_tls_failures_total{reason="violation"}']
    client = tls.connect()
    with socket.socket(fileno=client.detach()) as plain:
        plain.settimeout(TIMEOUT_S)
        plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        said = read_all(plain)
    assert len(said) < 100
    assert said[:1] == b"\x17"
    assert tls.server.scrape()['fastserve_tls_failures_total{reason="violation"}'] == before + 1


def test_a_client_that_does_not_read_is_waited_for(tls: Scene) -> None:
    """Its answers pile up in the socket, then in a bounded queue; when it reads, all is there."""
    value = np.arange(np.prod(LARGE), dtype=np.float32).reshape(LARGE)
    body, json_bytes = tritonclient.http.InferenceServerClient.generate_request_body(
        _tensor(tritonclient.http, value)
    )
    request = (
        b"POST /v2/models/any/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"inference-header-content-length: %d\r\n\r\n" % (len(body), json_bytes)
    ) + body
    count = 8
    with tls.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        for _ in range(count):
            client.sendall(request)
        client.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        time.sleep(0.2)
        said = read_all(client)
    assert said.count(value.tobytes()) == count
    assert said.endswith(b"}")


# --- new certificates


def test_reload_without_a_restart(tls: Scene) -> None:
    server = tls.server
    credentials = grpc.ssl_channel_credentials(tls.authority.pem.read_bytes())
    with grpc.secure_channel(server.grpc, credentials) as channel, tls.connect() as old:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        live(b"", timeout=TIMEOUT_S)
        second = tls.authority.issue("second", days=1)
        install(second, tls.files)
        before = server.scrape()["fastserve_tls_certificate_not_after_timestamp_seconds"]
        server.signal(signal.SIGHUP)
        eventually(lambda: _shown(tls) == "second")
        assert "valid until" in server.log()
        eventually(lambda: "CN=second" in server.log())
        assert server.scrape()["fastserve_tls_certificate_not_after_timestamp_seconds"] < before
        live(b"", timeout=TIMEOUT_S)  # open connections go on
        old.sendall(b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n")
        assert old.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_bad_reload_keeps_what_there_was(tls: Scene) -> None:
    before = _shown(tls)
    third = tls.authority.issue("third")
    failures = tls.server.scrape()['fastserve_tls_reloads_total{result="failure"}']
    (tls.files / "tls.crt").write_bytes(third.cert.read_bytes())  # the key is still the old one
    tls.server.signal(signal.SIGHUP)
    eventually(lambda: tls.server.scrape()['fastserve_tls_reloads_total{result="failure"}'] > failures)
    assert "the private key does not belong to the first certificate" in tls.server.log()
    assert _shown(tls) == before
    (tls.files / "tls.key").write_bytes(third.key.read_bytes())  # noticed without a signal
    eventually(lambda: _shown(tls) == "third", seconds=15)


def _shown(at: Scene) -> str:
    """The name in the certificate that new connections see."""
    with at.connect() as client:
        subject: Any = (client.getpeercert() or {})["subject"]
        return str(subject[0][0][1])


# --- start


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tls-key", "{key}"], "--tls-key is given without --tls-cert"),
        (["--tls-cert", "{cert}"], "--tls-cert is given without --tls-key"),
        (
            ["--tls-cert", "{folder}/no.pem", "--tls-key", "{key}"],
            "TLS: {folder}/no.pem: No such file or directory",
        ),
        (["--tls-cert", "{key}", "--tls-key", "{key}"], "TLS: {key}: holds no certificate"),
        (
            ["--tls-cert", "{cert}", "--tls-key", "{other}"],
            "TLS: {other}: the private key does not belong to",
        ),
        (
            ["--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-client-ca", "{cert}"],
            "is not that of an authority",
        ),
        (
            ["--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-min-version", "1.1"],
            "expected one of 1.2, 1.3",
        ),
    ],
)
def test_start_errors_are_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    authority = Authority(tmp_path, "ca")
    issued, other = authority.issue("one"), authority.issue("two")
    names = {"folder": tmp_path, "cert": issued.cert, "key": issued.key, "other": other.key}
    identity(tmp_path / "models", "any", [("FP32", [-1])])
    with pytest.raises(RuntimeError) as error:
        RunningServer(tmp_path / "models", tmp_path, *(a.format(**names) for a in arguments)).close()
    assert words.format(**names) in str(error.value)
    assert "Traceback" not in str(error.value)


def test_one_port_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    issued = authority.issue("one")
    identity(tmp_path / "models", "any", [("FP32", [-1])])
    arguments = ["--tls-cert", str(issued.cert), "--tls-key", str(issued.key), "--tls-ports", "grpc"]
    unix = tmp_path / "grpc.sock"
    with RunningServer(tmp_path / "models", tmp_path, *arguments, "--grpc-unix-socket", str(unix)) as server:
        assert tritonclient.http.InferenceServerClient(server.http).is_server_live()
        options = {"ssl": True, "root_certificates": str(authority.pem)}
        assert tritonclient.grpc.InferenceServerClient(server.grpc, **options).is_server_live()
        assert tritonclient.grpc.InferenceServerClient(f"unix:{unix}").is_server_live()
