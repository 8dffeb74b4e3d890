"""fastserve.client in its four forms against the real server, over every listener that it opens."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from certificates import Authority
from model_repository import DATATYPES, MAX_BATCH_ROWS, SLOW_S, WIDTH, identity, mlp_answer, values
from own_client import FORMS, OwnClient
from running_server import RunningServer, command

import fastserve
from fastserve.client import AsyncClient, Client, Input, Request, Retry
from fastserve.errors import DeadlineExceeded, FastserveError, InvalidArgument, NotFound, Unavailable


@pytest.fixture(
    scope="module", params=[(f, p) for f in FORMS for p in ("grpc", "http")], ids=lambda p: "-".join(p)
)
def own(request: pytest.FixtureRequest, server: Any) -> Iterator[OwnClient]:
    form, protocol = request.param
    with OwnClient(form, f"{protocol}://{getattr(server, protocol)}") as client:
        yield client


@pytest.fixture(scope="module", params=FORMS)
def streams(request: pytest.FixtureRequest, server: Any) -> Iterator[OwnClient]:
    with OwnClient(request.param, f"grpc://{server.grpc}") as client:
        yield client


def test_health_and_metadata(own: OwnClient) -> None:
    assert own.call("live")
    assert own.call("ready")
    assert own.call("ready", "mlp", version=1)
    assert not own.call("ready", "mlp", version=2)
    assert not own.call("ready", "no_such_model")
    server = own.call("metadata")
    assert (server.name, server.version) == ("fastserve", fastserve.__version__)
    assert "binary_tensor_data" in server.extensions
    model = own.call("metadata", "mlp")
    assert (model.name, model.versions) == ("mlp", ("1",))
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [("x", "FP32", (-1, 16))]


def test_config_and_index_agree_over_both(own: OwnClient) -> None:
    config = own.call("config", "mlp")
    assert (config["name"], config["backend"]) == ("mlp", "openvino")
    assert config["input"][0]["dims"] == [16]
    entries = {(entry.name, entry.version): entry for entry in own.call("index")}
    assert entries["versions", "7"].state == "READY"
    assert "max_batchsize" in next(e.reason for e in entries.values() if e.name == "misspelt")


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype(own: OwnClient, datatype: str) -> None:
    x = values(datatype, (2, WIDTH))
    given = Input(x, "BF16") if datatype == "BF16" else x
    result = own.infer(f"batch_{datatype.lower()}", {"INPUT0": given})
    y = result["OUTPUT0"]
    assert result.datatypes == {"OUTPUT0": datatype}
    assert y.shape == x.shape
    assert y.dtype == (ml_dtypes.bfloat16 if datatype == "BF16" else x.dtype)
    assert np.array_equal(y.astype(x.dtype), x)


def test_a_real_model(own: OwnClient) -> None:
    x = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)
    result = own.infer("mlp", x, version="1", outputs=["y"], id="an id", priority=0)
    np.testing.assert_allclose(result["y"], mlp_answer(x), rtol=2e-2, atol=2e-2)
    assert (result.model, result.model_version, result.id) == ("mlp", "1", "an id")


def test_a_large_tensor(own: OwnClient) -> None:
    x = np.random.default_rng(2).standard_normal((300, 1000)).astype(np.float32)
    assert np.array_equal(own.infer("any_fp32", {"INPUT0": x})["OUTPUT0"], x)


def test_json_instead_of_binary(server: Any) -> None:
    for form in FORMS:
        with OwnClient(form, f"http://{server.http}", binary=False) as client:
            x = values("INT64", (2, WIDTH))
            assert np.array_equal(client.infer("batch_int64", x)["OUTPUT0"], x)
            s = np.array([["a", "é", "", "d"]], object)
            assert client.infer("batch_bytes", s)["OUTPUT0"].tolist() == [[b"a", "é".encode(), b"", b"d"]]


@pytest.mark.parametrize(
    ("model", "inputs", "kind", "field", "words"),
    [
        ("no_such_model", {"x": np.zeros(1, np.float32)}, NotFound, "", "no_such_model"),
        (
            "batch_fp32",
            {"INPUT0": np.zeros((1, 3), np.float32)},
            InvalidArgument,
            'inputs["INPUT0"].shape[1]',
            "want 4",
        ),
        (
            "batch_fp32",
            {"INPUT0": np.zeros((1, 4), np.int8)},
            InvalidArgument,
            'inputs["INPUT0"].datatype',
            "FP32",
        ),
        (
            "batch_fp32",
            {"INPUT9": np.zeros((1, 4), np.float32)},
            InvalidArgument,
            'inputs["INPUT9"]',
            "INPUT9",
        ),
        (
            "batch_fp32",
            {"INPUT0": np.zeros((MAX_BATCH_ROWS + 1, 4), np.float32)},
            InvalidArgument,
            None,
            "batch-size",
        ),
    ],
)
def test_errors_name_the_field(
    own: OwnClient, model: str, inputs: Any, kind: type[FastserveError], field: str | None, words: str
) -> None:
    with pytest.raises(kind) as caught:
        own.infer(model, inputs)
    assert words in caught.value.message
    if field is not None:
        assert caught.value.field == field


def test_a_version_that_is_not_there(own: OwnClient) -> None:
    with pytest.raises(NotFound, match="version 2"):
        own.infer("versions", {"INPUT0": np.zeros((1, 4), np.float32)}, version=2)


def test_a_deadline(own: OwnClient) -> None:
    """A server that has learned what the model costs refuses at once; whether there is time for one more try decides what is
    raised then."""
    with pytest.raises((DeadlineExceeded, Unavailable)) as caught:
        own.infer("slow", {"INPUT0": np.zeros((1, WIDTH), np.float32)}, timeout=SLOW_S / 4)
    if isinstance(caught.value, Unavailable):
        assert "would miss its deadline" in caught.value.message


def test_the_queues_timeout(own: OwnClient) -> None:
    """`timeout` among the parameters is the server's, in µs."""
    with pytest.raises(FastserveError) as caught:
        own.infer("batch_fp32", {"INPUT0": np.zeros((1, 4), np.float32)}, parameters={"timeout": "soon"})
    assert caught.value.code == 3
    assert "timeout" in caught.value.message


def test_statistics_move_by_what_was_sent(own: OwnClient) -> None:
    (before,) = own.call("statistics", "batch_int8")
    own.infer("batch_int8", np.zeros((3, WIDTH), np.int8))
    (after,) = own.call("statistics", "batch_int8")
    assert after.inference_count - before.inference_count == 3
    assert after.total("success").count - before.total("success").count == 1
    assert after.total("queue").ns >= before.total("queue").ns
    assert after.batches[3]["compute_infer"].count >= 1
    names = {entry.name for entry in own.call("statistics")}
    assert {"batch_int8", "mlp"} <= names


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_many_threads_one_client(server: Any, protocol: str) -> None:
    with Client(f"{protocol}://{getattr(server, protocol)}", max_connections=4) as client:

        def ask(number: int) -> bool:
            x = np.full((1, WIDTH), number, np.float32)
            return bool(np.array_equal(client.infer("batch_fp32", x, id=str(number))["OUTPUT0"], x))

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(400)))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_many_tasks_one_client(server: Any, protocol: str) -> None:
    async with AsyncClient(f"{protocol}://{getattr(server, protocol)}") as client:
        arrays = [np.full((1, WIDTH), number, np.float32) for number in range(400)]
        results = await asyncio.gather(*(client.infer("batch_fp32", x) for x in arrays))
    assert all(np.array_equal(r["OUTPUT0"], x) for r, x in zip(results, arrays, strict=True))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_full_queue_is_waited_out(server: Any, protocol: str) -> None:
    """`tight` takes one row at a time and lets two wait: of four at once, one is refused and comes again."""
    url = f"{protocol}://{getattr(server, protocol)}"
    x = np.zeros((1, WIDTH), np.float32)
    async with AsyncClient(url, retry=Retry(attempts=30, first_delay=0.1, max_delay=0.2)) as patient:
        await asyncio.gather(*(patient.infer("tight", x) for _ in range(4)))
    async with AsyncClient(url, retry=Retry(attempts=1)) as proud:
        answers = await asyncio.gather(*(proud.infer("tight", x) for _ in range(6)), return_exceptions=True)
    assert any(isinstance(answer, Unavailable) and "queue" in answer.message for answer in answers)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_cancelled_task_frees_its_connection(server: Any, protocol: str) -> None:
    async with AsyncClient(f"{protocol}://{getattr(server, protocol)}", max_connections=1) as client:
        task = asyncio.create_task(client.infer("slow", np.zeros((1, WIDTH), np.float32)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        x = np.ones((1, WIDTH), np.float32)
        assert np.array_equal((await client.infer("batch_fp32", x, timeout=SLOW_S))["OUTPUT0"], x)


# --- other listeners


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, dict[str, str]]]:
    """A server that wants certificates, with Unix sockets beside; the client's files."""
    folder = tmp_path_factory.mktemp("guarded")
    authority = Authority(folder, "ca")
    server, client = authority.issue("server"), authority.issue("client")
    repository = folder / "models"
    identity(repository, "any", [("FP32", [-1, -1])])
    arguments = [f"--tls-cert={server.cert}", f"--tls-key={server.key}", f"--tls-client-ca={authority.pem}"]
    arguments += [f"--{name}-unix-socket={folder / name}" for name in ("grpc", "http")]
    with RunningServer(repository, folder, *arguments) as running:
        yield running, {"ca": str(authority.pem), "cert": str(client.cert), "key": str(client.key)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_mutual_tls(guarded: Any, form: str, protocol: str) -> None:
    server, files = guarded
    x = np.random.default_rng(3).standard_normal((300, 700)).astype(np.float32)
    with OwnClient(form, f"{protocol}s://{getattr(server, protocol)}", **files) as client:
        for _ in range(3):
            assert np.array_equal(client.infer("any", x)["OUTPUT0"], x)
    with (
        OwnClient(form, f"{protocol}s://{getattr(server, protocol)}", ca=files["ca"], timeout=5) as client,
        pytest.raises(Unavailable),
    ):
        client.call("live")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("listener", "prefix"), [("grpc_unix", ""), ("http_unix", "http+")])
def test_unix_sockets(guarded: Any, form: str, listener: str, prefix: str) -> None:
    x = np.ones((2, 3), np.float32)
    with OwnClient(form, prefix + guarded[0].addresses[listener]) as client:
        assert np.array_equal(client.infer("any", x)["OUTPUT0"], x)


@pytest.mark.parametrize("listener", ["grpc", "http", "grpc_unix", "http_unix"])
def test_load_over_them(guarded: Any, listener: str, tmp_path: Path) -> None:
    """`fastserve bench` has a transport of its own: large tensors over TLS and Unix sockets."""
    server, files = guarded
    url = server.addresses[listener]
    if "unix" in listener:
        url, files = ("http+" if listener == "http_unix" else "") + url, {}
    else:
        url = f"{listener}s://{url}"
    file = tmp_path / "bench.json"
    given = [f"--{name}={path}" for name, path in files.items()]
    done = subprocess.run(
        command(
            *(
                "bench",
                "any",
                "--url",
                url,
                *given,
                "--shape",
                "100,300",
                "--concurrency",
                "6",
                "--connections",
                "3",
            ),
            *("--duration", "0.5", "--warmup", "0.1", "--json", str(file)),
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (level,) = json.loads(file.read_text())["levels"]
    assert level["errors"] == []
    assert level["requests"]["answered"] > 10


# --- streams


def test_a_stream_of_one(streams: OwnClient) -> None:
    x = values("FP32", (2, WIDTH))
    (result,) = streams.collect("stream", "batch_fp32", x, id="s")
    assert result.id == "s"
    assert np.array_equal(result["OUTPUT0"], x)


def test_a_stream_of_many_with_an_error_among_them(streams: OwnClient) -> None:
    def request(number: int) -> Request:
        width = 3 if number == 5 else WIDTH
        return Request("batch_fp32", {"INPUT0": np.full((1, width), number, np.float32)}, id=str(number))

    items = streams.collect("stream_all", [request(number) for number in range(20)])
    assert len(items) == 20
    errors = [item for item in items if isinstance(item, FastserveError)]
    assert len(errors) == 1
    assert errors[0].field == 'inputs["INPUT0"].shape[1]'
    results = {int(item.id): item for item in items if not isinstance(item, FastserveError)}
    assert sorted(results) == [n for n in range(20) if n != 5]
    assert all(float(result["OUTPUT0"][0, 0]) == number for number, result in results.items())


def test_a_refused_stream_request_is_raised(streams: OwnClient) -> None:
    with pytest.raises(FastserveError, match="no_such_model"):
        streams.collect("stream", "no_such_model", {"x": np.zeros(1, np.float32)})
