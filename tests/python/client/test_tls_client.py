"""TLS and mTLS in the four clients."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from certificates import Authority
from own_client import OwnClient
from scripted_server import ScriptedServer, echo, echoed, grpc_server

from fastserve.errors import FastserveError, InvalidArgument

X = {"x": np.ones(2, np.float32)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and server.pem, client.pem with their .key, signed by it."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "ca")
    for name in ("server", "client"):
        authority.issue(name)
    return folder


@pytest.fixture(params=["grpc", "http"])
def server(request: pytest.FixtureRequest, certificates: Path) -> Any:
    """url -> of a server that wants (or not) a certificate of its clients."""
    stack = ExitStack()

    def start(*, mutual: bool) -> str:
        if request.param == "grpc":
            pair = ((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())
            ca = (certificates / "ca.pem").read_bytes() if mutual else None
            made = grpc.ssl_server_credentials([pair], ca, mutual)
            return stack.enter_context(grpc_server(made, ModelInfer=echoed))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificates / "ca.pem")
        return stack.enter_context(ScriptedServer(echo, tls=context)).url

    with stack:
        yield start


def test_tls(form: str, server: Any, certificates: Path) -> None:
    with OwnClient(form, server(mutual=False), ca=certificates / "ca.pem") as client:
        assert np.array_equal(client.infer("m", X)["x"], X["x"])


def test_mutual_tls(form: str, server: Any, certificates: Path) -> None:
    files = {
        "ca": str(certificates / "ca.pem"),
        "cert": str(certificates / "client.pem"),
        "key": str(certificates / "client.key"),
    }
    with OwnClient(form, server(mutual=True), **files) as client:
        assert np.array_equal(client.infer("m", X)["x"], X["x"])


def test_an_unknown_authority_is_not_trusted(form: str, server: Any) -> None:
    with OwnClient(form, server(mutual=False), timeout=5) as client, pytest.raises(FastserveError) as caught:
        client.infer("m", X)
    assert caught.value.code == 14


def test_without_a_certificate_where_one_is_wanted(form: str, server: Any, certificates: Path) -> None:
    with (
        OwnClient(form, server(mutual=True), ca=certificates / "ca.pem", timeout=5) as client,
        pytest.raises(FastserveError) as caught,
    ):
        client.infer("m", X)
    assert caught.value.code == 14


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "grpcs://127.0.0.1:1"])
def test_files_that_are_not_there(form: str, url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"tls: .*nothing\.pem"):
        OwnClient(form, url, ca="/nowhere/nothing.pem")
