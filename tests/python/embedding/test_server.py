"""fastserve.Server: the front ends of an embedded engine, asked by real clients."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tests.support.certificates import Authority
from tritonclient.utils import InferenceServerException, shared_memory

import fastserve
from fastserve import Engine, FailedPrecondition, InvalidArgument, Server, Unavailable, config
from fastserve.client import AsyncClient, Client
from fastserve.client.local import LocalClient
from fastserve.server import StartError

X = np.arange(8, dtype=np.float32).reshape(2, 4)
Load = Callable[..., None]


def get(server: Server, path: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(f"http://{server.addresses['http']}{path}", data, timeout=10) as answer:
        body = answer.read()
    return json.loads(body) if body else None


@pytest.mark.parametrize("io_threads", [0, 1])
def test_both_front_ends_and_the_program_ask_the_same_engine(engine: Engine, io_threads: int) -> None:
    with Server(engine, http=0, grpc=0, io_threads=io_threads) as server:
        assert set(server.addresses) == {"http", "grpc"}
        for scheme in ("http", "grpc"):
            with Client(f"{scheme}://{server.addresses[scheme]}") as client:
                np.testing.assert_array_equal(client.infer("echo", {"x": X})["y"], X)
        np.testing.assert_array_equal(engine.infer("echo", {"x": X})["y"], X)
        assert engine.core.statistics("echo", 1).success.count == 3
    assert server.addresses == {}
    np.testing.assert_array_equal(engine.infer("echo", {"x": X})["y"], X)


def test_its_models_are_in_every_api(engine: Engine, load_echo: Load) -> None:
    with Server(engine, http=0, grpc=0, metrics=0) as server:
        load_echo(engine, "later", version=3)
        with triton.InferenceServerClient(server.addresses["grpc"]) as client:
            assert client.is_server_ready()
            assert client.is_model_ready("later", "3")
            index = client.get_model_repository_index(as_json=True)["models"]
            assert [(m["name"], m["version"], m["state"]) for m in index] == [
                ("echo", "1", "READY"),
                ("later", "3", "READY"),
            ]
            config = client.get_model_config("later", as_json=True)["config"]
            assert (config["name"], config["backend"], config["max_batch_size"]) == ("later", "identity", 8)
            assert config["input"][0]["dims"] == ["4"]
            metadata = client.get_model_metadata("echo", as_json=True)
            assert metadata["inputs"][0]["shape"] == ["-1", "4"]
            assert client.get_inference_statistics("echo", as_json=True)["model_stats"][0]["name"] == "echo"
            with pytest.raises(triton.InferenceServerException, match="belong to the program"):
                client.unload_model("echo")
        assert [m["name"] for m in get(server, "/v2/repository/index", b"{}")] == ["echo", "later"]
        assert get(server, "/v2/models/later")["versions"] == ["3"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(server, "/v2/repository/models/echo/load", b"{}")
        assert refused.value.code == 503
        metrics = urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics").read().decode()
        assert 'nv_inference_request_success{model="later",version="3"}' in metrics
        engine.unload("later")
        assert [m["name"] for m in get(server, "/v2/repository/index", b"{}")] == ["echo"]


async def test_on_the_callers_loop(engine: Engine) -> None:
    async with Server(engine, http=0, grpc=0) as server:
        async with AsyncClient(f"grpc://{server.addresses['grpc']}") as client:
            answers = await asyncio.gather(
                client.infer("echo", {"x": X}), engine.infer_async("echo", {"x": X + 1})
            )
        np.testing.assert_array_equal(answers[0]["y"], X)
        np.testing.assert_array_equal(answers[1]["y"], X + 1)
        assert (await asyncio.to_thread(get, server, "/v2"))["name"] == "fastserve"
        with pytest.raises(FailedPrecondition, match="await stop_async"):
            server.stop()
    assert server.addresses == {}


@pytest.mark.parametrize("ports", [{"http": None, "grpc": 0}, {"http": 0, "grpc": None}])
def test_one_front_end_alone(engine: Engine, ports: dict[str, int | None]) -> None:
    with Server(engine, **ports) as server:  # type: ignore[arg-type]
        (scheme,) = server.addresses
        with Client(f"{scheme}://{server.addresses[scheme]}") as client:
            assert client.infer("echo", {"x": X})["y"].shape == (2, 4)
    with pytest.raises(InvalidArgument, match=r"want at least one front end"):
        Server(engine, http=None, grpc=None)


def test_tls(engine: Engine, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca", "authority")
    own = authority.issue("server")
    tls = config.Tls(cert=own.cert, key=own.key)
    with Server(engine, http=0, grpc=0, metrics=0, tls=tls) as server:
        context = ssl.create_default_context(cafile=str(authority.pem))
        url = f"https://{server.addresses['http']}/v2/health/ready"
        with urllib.request.urlopen(url, timeout=10, context=context) as answer:
            assert answer.status == 200
        root = authority.pem.read_bytes()
        with grpc.secure_channel(server.addresses["grpc"], grpc.ssl_channel_credentials(root)) as channel:
            grpc.channel_ready_future(channel).result(10)
        with urllib.request.urlopen(f"http://{server.addresses['metrics']}/metrics", timeout=10) as answer:
            assert b"fastserve_tls_certificate_not_after_timestamp_seconds" in answer.read()
    broken = Server(engine, http=0, grpc=0, tls=config.Tls(cert=own.cert))
    with pytest.raises(StartError, match="--tls-key"):
        broken.start()


def test_traces_go_to_the_file(engine: Engine, tmp_path: Path) -> None:
    tracing = config.Tracing(file=tmp_path / "trace.json", level="TIMESTAMPS", rate=1)
    with (
        Server(engine, http=0, grpc=None, tracing=tracing) as server,
        Client(f"http://{server.addresses['http']}") as client,
    ):
        client.infer("echo", {"x": X})
    found = json.loads((tmp_path / "trace.json").read_text())
    assert any(entry.get("model_name") == "echo" for entry in found)


def test_shared_memory_of_clients_is_opt_in(engine: Engine) -> None:
    name = f"fastserve-test-{os.getpid()}"
    region = shared_memory.create_shared_memory_region(name, f"/{name}", 64)
    try:
        for allowed in (False, True):
            with (
                Server(engine, http=None, grpc=0, allow_client_shm=allowed) as server,
                triton.InferenceServerClient(server.addresses["grpc"]) as client,
            ):
                if not allowed:
                    with pytest.raises(InferenceServerException, match="not enabled"):
                        client.register_system_shared_memory(name, f"/{name}", 64)
                    continue
                client.register_system_shared_memory(name, f"/{name}", 64)
                assert set(client.get_system_shared_memory_status().regions) == {name}
                client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(region)


def test_unix_sockets(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "grpc"
    with Server(engine, http=None, grpc=None, grpc_unix_socket=str(path)) as server:
        assert server.addresses == {"grpc_unix": f"unix:{path}"}
        with Client(f"unix:{path}") as client:
            assert client.infer("echo", {"x": X})["y"].shape == (2, 4)
    assert not path.exists()


def test_the_local_transport(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "local"
    with Server(engine, http=None, grpc=None, local=str(path)) as server:
        assert server.addresses == {"local": f"unix:{path}"}
        with LocalClient(server.addresses["local"]) as client:
            np.testing.assert_array_equal(client.infer("echo", {"x": X})["y"], X)
        with pytest.raises(StartError):
            Server(engine, http=0, grpc=None, local=str(path)).start()
    assert not path.exists()


def test_start_and_stop_again_and_again(engine: Engine) -> None:
    server = Server(engine, http=0, grpc=0)
    assert server.stop()
    threads = {t.name for t in threading.enumerate()}
    for _ in range(3):
        server.start()
        with pytest.raises(FailedPrecondition, match="runs already"):
            server.start()
        assert get(server, "/v2/health/ready") == {"ready": True}
        assert server.stop()
    assert {t.name for t in threading.enumerate()} - threads == set()


def test_a_port_in_use_is_said_and_leaves_nothing_behind(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(engine, http=0, grpc=taken.getsockname()[1])
        with pytest.raises(StartError, match="is in use"):
            server.start()
    assert server.addresses == {}
    server.start()
    server.stop()


def test_two_servers_of_one_engine(engine: Engine) -> None:
    with Server(engine, http=0, grpc=None) as one, Server(engine, http=0, grpc=None) as other:
        assert get(one, "/v2/models/echo")["name"] == get(other, "/v2/models/echo")["name"] == "echo"
        one.stop()
        assert get(other, "/v2/models/echo")["name"] == "echo"


def test_stopping_answers_what_was_admitted(
    engine: Engine, load_echo: Load, eventually: Callable[..., None]
) -> None:
    load_echo(engine, "slow", 300_000)
    server = Server(engine, http=None, grpc=0)
    server.start()
    answers: list[Any] = []

    def ask() -> None:
        with Client(f"grpc://{server.addresses['grpc']}") as client:
            answers.append(client.infer("slow", {"x": X})["y"].shape)

    asking = threading.Thread(target=ask)
    asking.start()
    eventually(lambda: engine.core.statistics("slow", 1).in_flight == 1)
    assert server.stop()
    asking.join(10)
    assert answers == [(2, 4)]


def test_closing_the_engine_stops_its_servers(engine: Engine) -> None:
    server = Server(engine, http=0, grpc=0)
    server.start()
    engine.close()
    assert server.addresses == {}
    with pytest.raises(Unavailable, match="the engine is closed"):
        server.start()


async def test_closing_the_engine_on_the_loop_of_its_server(engine: Engine) -> None:
    server = Server(engine, http=0, grpc=0)
    await server.start_async()
    engine.close()
    assert server.addresses == {}
    assert await server.stop_async()


def test_a_server_that_nobody_knows_serves_on(engine: Engine) -> None:
    import gc

    server = Server(engine, http=0, grpc=None)
    server.start()
    address = server.addresses["http"]
    del server
    gc.collect()
    with Client(f"http://{address}") as client:
        assert client.infer("echo", {"x": X})["y"].shape == (2, 4)
    engine.close()
    with pytest.raises(OSError):
        socket.create_connection(tuple(address.split(":")), 5)  # type: ignore[arg-type]


def test_a_python_backend_is_served(engine: Engine) -> None:
    engine.register_backend(
        "double",
        lambda batch: {"y": batch.inputs["x"] * 2},
        inputs=[fastserve.Tensor("x", "FP32", (-1, 4))],
        outputs=[fastserve.Tensor("y", "FP32", (-1, 4))],
        max_batch_rows=8,
    )
    engine.load("twice", backend="double")
    with Server(engine, http=0, grpc=0) as server:
        for scheme in ("http", "grpc"):
            with Client(f"{scheme}://{server.addresses[scheme]}") as client:
                np.testing.assert_array_equal(client.infer("twice", {"x": X})["y"], X * 2)


@pytest.mark.parametrize(
    "end", ["", "server.stop()", "engine.close()", "del server; del engine; gc.collect()"]
)
@pytest.mark.parametrize("io_threads", [0, 1])
def test_a_program_that_ends_while_it_serves(program: Callable[..., Any], end: str, io_threads: int) -> None:
    started = program(
        f"""
        import urllib.request
        server = fastserve.Server(engine, http=0, grpc=0, io_threads={io_threads})
        server.start()
        with urllib.request.urlopen(f"http://{{server.addresses['http']}}/v2/health/ready") as answer:
            print(answer.status)
        {end}
        """,
        "-W",
        "ignore::ResourceWarning",
    )
    assert started.end() == (0, "200", "")
