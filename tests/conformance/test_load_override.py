"""Loads by request that bring a configuration or files along, as Triton has them: the real tritonclients, raw messages and
raw routes."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from explicit_server import Explicit, assert_answers, put_mlp, refused, scaled_mlp
from model_repository import identity
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import Infer, Refused, fp32, grpc_infer

INVALID_ARGUMENT, RESOURCE_EXHAUSTED = 3, 8
MAX_FILES, MAX_FILE_BYTES = 5, 200_000
KINDS = ("grpc", "http", "grpc.aio", "http.aio")
ONNX = json.dumps({"backend": "openvino", "default_model_filename": "model.onnx"})


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def explicit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explicit]:
    folder = tmp_path_factory.mktemp("override")
    repository = folder / "models"
    identity(repository, "at_start", [("FP32", [4])], max_batch=8)
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    arguments = ("--model-control-mode", "explicit", "--load-model", "at_start", "--io-threads", threads)
    limits = ("--load-files", str(MAX_FILES), "--load-file-bytes", str(MAX_FILE_BYTES))
    with RunningServer(repository, folder, *arguments, *limits) as running:
        yield Explicit(running, repository)
        running.signal()
        assert running.wait() == 0, running.log()
        assert kept(running.process.pid) == []


@pytest.fixture(params=KINDS)
def user(request: pytest.FixtureRequest, explicit: Explicit, client_class: Any) -> Iterator[Any]:
    made = client_class(request.param, explicit.server)
    yield made
    made.close()


def load(explicit: Explicit, model: str, config: str | None = None, **files: bytes) -> Any:
    """`files`: "1/model.onnx" -> content, given as keyword arguments."""
    made = {f"file:{k}": service_pb2.ModelRepositoryParameter(bytes_param=v) for k, v in files.items()}
    if config is not None:
        made["config"] = service_pb2.ModelRepositoryParameter(string_param=config)
    return explicit.rpc("RepositoryModelLoad", model_name=model, parameters=made)


def batch_size(explicit: Explicit, model: str) -> int:
    return int(explicit.rpc("ModelConfig", name=model).config.max_batch_size)


def kept(pid: int) -> list[Path]:
    """Files of requests that a server keeps."""
    folders = [
        folder
        for parent in (Path("/dev/shm"), Path(tempfile.gettempdir()))
        for folder in parent.glob(f"fastserve-files-{os.getuid()}-{pid}-*")
    ]
    return sorted(
        path for folder in folders for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    )


# --- a configuration


def test_a_configuration_takes_the_place_of_the_repository_s(user: Any, explicit: Explicit) -> None:
    model = f"configured_{user.kind.replace('.', '_')}"
    identity(explicit.repository, model, [("FP32", [4])], max_batch=8)
    text = (explicit.repository / model / "config.pbtxt").read_text()
    tensor = {"data_type": "TYPE_FP32", "dims": [4]}
    wanted = {
        "backend": "identity",
        "maxBatchSize": 2,
        "input": [{"name": "IN", **tensor}],
        "output": [{"name": "OUT", **tensor}],
    }
    user.call("load_model", model, config=json.dumps(wanted))
    assert batch_size(explicit, model) == 2
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(user.infer(model, {"IN": ("FP32", x)}).as_numpy("OUT"), x)
    with pytest.raises(Exception, match="batch"):
        user.infer(model, {"IN": ("FP32", np.ones((3, 4), np.float32))})
    assert (explicit.repository / model / "config.pbtxt").read_text() == text
    user.call("load_model", model)  # back to what the repository says
    assert batch_size(explicit, model) == 8
    np.testing.assert_array_equal(user.infer(model, {"INPUT0": ("FP32", x)}).as_numpy("OUTPUT0"), x)


def test_a_version_policy_of_the_request(explicit: Explicit) -> None:
    identity(explicit.repository, "policy", [("FP32", [4])], versions=(1, 2, 3))
    explicit.load("policy")
    assert [v for v, _, _ in explicit.index("policy", ready=True)] == ["3"]
    config = {"backend": "identity", "version_policy": {"specific": {"versions": [1, "2"]}}}
    config |= {side: [{"name": side, "data_type": "TYPE_FP32", "dims": [4]}] for side in ("input", "output")}
    assert not isinstance(load(explicit, "policy", json.dumps(config)), Refused)
    assert [v for v, _, _ in explicit.index("policy", ready=True)] == ["1", "2"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("3", "got a number, want a JSON object"),
        ('{"max_batch_size": 4, "max_batch_size": 5}', "'max_batch_size' is given twice"),
        ('{"max_batch_size": -4}', "max_batch_size: got -4, want at least 0"),
        ('{"max_batch_size": "many"}', "max_batch_size: "),
        ('{"max_batch_size": 99999999999}', "max_batch_size: "),
        ('{"max_batchsize": 4}', "unknown field 'max_batchsize' (did you mean max_batch_size?)"),
        ('{"input": [{"nam": "x"}]}', "unknown field 'input.nam' (did you mean name?)"),
        ('{"backend": "no_such"}', "backend: 'no_such' is not available here"),
        ('{"name": "other"}', "name: got 'other'"),
        (
            '{"backend": "identity", "instance_group": [{"kind": "KIND_GPU"}]}',
            "KIND_GPU, but identity runs on the CPU",
        ),
        ('{"ensemble_scheduling": {"step": [{"model_name": "x"}]}}', "ensemble_scheduling"),
        ('{"version_policy": {"specific": {"versions": [7]}}}', "version 7 of version_policy.specific"),
        ('{"default_model_filename": "../../x"}', "'../../x' leaves the version directory"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_a_configuration_that_is_refused(explicit: Explicit, config: str, words: str) -> None:
    message = refused(load(explicit, "at_start", config), INVALID_ARGUMENT)
    assert words in message
    assert len(message) < 600
    body = json.dumps({"parameters": {"config": config}}).encode()
    status, answered = explicit.rest.post("/v2/repository/models/at_start/load", body)
    assert (status, words in answered["error"]) == (400, True), answered
    assert explicit.ready("at_start")
    assert explicit.index("at_start") == [("1", "READY", "")]


# --- files


def test_files_make_a_model_with_tritonclient(user: Any, explicit: Explicit) -> None:
    model = f"uploaded_{user.kind.replace('.', '_')}"
    put_mlp(explicit, model, scale=5.0)
    content = scaled_mlp(2.0)
    if not user.is_grpc:
        pytest.skip("tritonclient 2.41 over HTTP cannot put bytes into JSON: test_files_over_rest")
    user.call("load_model", model, config=ONNX, files={"file:1/model.onnx": content})
    assert_answers(explicit, model, scale=2.0)
    user.call("load_model", model)
    assert_answers(explicit, model, scale=5.0)
    user.call("unload_model", model)


def test_files_over_rest(explicit: Explicit) -> None:
    put_mlp(explicit, "by_rest", scale=5.0)
    parameters = {"config": ONNX, "file:7/model.onnx": base64.b64encode(scaled_mlp(2.0)).decode()}
    body = json.dumps({"parameters": parameters}).encode()
    status, answered = explicit.rest.post("/v2/repository/models/by_rest/load", body)
    assert status == 200, answered
    assert explicit.index("by_rest", ready=True) == [("7", "READY", "")]  # the request's versions alone
    assert_answers(explicit, "by_rest", scale=2.0)
    explicit.unload("by_rest")
    assert kept(explicit.server.process.pid) == []


def test_files_are_private_and_go_with_the_model(explicit: Explicit) -> None:
    (explicit.repository / "private").mkdir()  # a model of files needs nothing in the repository
    for scale in (2.0, 3.0):  # the second takes the place of the first
        assert not isinstance(load(explicit, "private", ONNX, **{"1/model.onnx": scaled_mlp(scale)}), Refused)
        assert_answers(explicit, "private", scale=scale)
        (file,) = kept(explicit.server.process.pid)
        assert file.stat().st_mode & 0o777 == 0o600
        folder = next(p for p in file.parents if p.name.startswith("fastserve-files-"))
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list((explicit.repository / "private").iterdir()) == []
    assert not isinstance(explicit.unload("private"), Refused)
    assert kept(explicit.server.process.pid) == []


def test_a_model_that_no_repository_has(explicit: Explicit) -> None:
    assert not isinstance(load(explicit, "from_nowhere", ONNX, **{"3/model.onnx": scaled_mlp(2.0)}), Refused)
    assert_answers(explicit, "from_nowhere", scale=2.0)
    assert "failed to poll" in refused(explicit.load("from_nowhere"), 5)
    assert_answers(explicit, "from_nowhere", scale=2.0)  # it serves on
    explicit.unload("from_nowhere")


def test_all_versions_or_none(explicit: Explicit) -> None:
    put_mlp(explicit, "whole", scale=5.0)
    explicit.load("whole")
    config = json.dumps({"backend": "openvino", "version_policy": {"all": {}}})
    files = {"1/model.onnx": scaled_mlp(2.0), "2/model.onnx": b"this is no model"}
    message = refused(load(explicit, "whole", config, **files), INVALID_ARGUMENT)
    assert message.startswith("load failed for model 'whole': version 2 is at UNAVAILABLE state: ")
    assert explicit.index("whole", ready=True)[0][:2] == ("1", "READY")
    assert_answers(explicit, "whole", scale=5.0)
    assert kept(explicit.server.process.pid) == []
    explicit.unload("whole")


def test_what_was_never_right_leaves_nothing_behind(explicit: Explicit) -> None:
    message = refused(load(explicit, "junk", ONNX, **{"1/model.onnx": b"no"}), INVALID_ARGUMENT)
    assert "version 1 is at UNAVAILABLE state" in message
    ((version, state, reason),) = explicit.index("junk")
    assert (version, state) == ("1", "UNAVAILABLE")
    assert reason in message
    assert kept(explicit.server.process.pid) == []
    explicit.unload("junk")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "../model.onnx",
            "1/../../model.onnx",
            "/etc/passwd",
            "1//model.onnx",
            "./model.onnx",
            "1/",
            "",
            ".",
        ),
        *("1/a\0b", "1\\model.onnx", "a/" * 9 + "x", "1/" + "x" * 256, "1/" + "y/" * 600 + "x"),
        *("config.pbtxt", "model.yaml"),
    ],
)
def test_paths_that_are_refused(explicit: Explicit, path: str) -> None:
    message = refused(load(explicit, "at_start", ONNX, **{path: b"x"}), INVALID_ARGUMENT)
    assert message.startswith(f"load parameter 'file:{path[:80]}': ")
    assert explicit.index("at_start") == [("1", "READY", "")]
    assert kept(explicit.server.process.pid) == []


def test_a_file_cannot_be_a_folder(explicit: Explicit) -> None:
    message = refused(load(explicit, "at_start", ONNX, **{"1/a": b"x", "1/a/b": b"y"}), INVALID_ARGUMENT)
    assert "'file:1/a' is a file, no folder" in message


def test_code_is_not_taken_from_a_request(explicit: Explicit) -> None:
    config = json.dumps({"backend": "python"})
    message = refused(load(explicit, "code", config, **{"1/model.py": b"print(1)"}), INVALID_ARGUMENT)
    assert "backend: got 'python'" in message


@pytest.mark.parametrize("count", [MAX_FILES - 1, MAX_FILES, MAX_FILES + 1])
def test_so_many_files(explicit: Explicit, count: int) -> None:
    files = {"1/model.onnx": scaled_mlp(2.0)} | {f"1/extra{i}": b"x" for i in range(count - 1)}
    answer = load(explicit, "counted", ONNX, **files)
    if count <= MAX_FILES:
        assert not isinstance(answer, Refused)
        explicit.unload("counted")
    else:
        message = refused(answer, INVALID_ARGUMENT)
        assert message == f"load parameters 'file:': got {count}, want at most {MAX_FILES} (--load-files)"


@pytest.mark.parametrize("size", [MAX_FILE_BYTES - 1, MAX_FILE_BYTES, MAX_FILE_BYTES + 1])
def test_so_many_bytes(explicit: Explicit, size: int) -> None:
    content = scaled_mlp(2.0)
    answer = load(
        explicit, "weighed", ONNX, **{"1/model.onnx": content, "1/rest": bytes(size - len(content))}
    )
    if size <= MAX_FILE_BYTES:
        assert not isinstance(answer, Refused)
        # What is there counts: not one byte more, of whatever model.
        refused(load(explicit, "another", ONNX, **{"1/x": bytes(2)}), RESOURCE_EXHAUSTED)
        explicit.unload("weighed")
    else:
        message = refused(answer, RESOURCE_EXHAUSTED)
        assert f"have {size} bytes and those of other loads 0: want at most {MAX_FILE_BYTES}" in message
    assert kept(explicit.server.process.pid) == []


def test_nothing_fails_while_files_take_the_place_of_files(explicit: Explicit) -> None:
    request = Infer("swapped", (fp32("x", 1, 16),))
    load(explicit, "swapped", ONNX, **{"1/model.onnx": scaled_mlp(1.0)})
    with grpc.insecure_channel(explicit.server.grpc) as channel:
        for scale in (2.0, 3.0, 4.0):
            call = channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad").future(
                service_pb2.RepositoryModelLoadRequest(
                    model_name="swapped",
                    parameters={
                        "config": service_pb2.ModelRepositoryParameter(string_param=ONNX),
                        "file:1/model.onnx": service_pb2.ModelRepositoryParameter(
                            bytes_param=scaled_mlp(scale)
                        ),
                    },
                ).SerializeToString(),
                timeout=20,
            )
            while not call.done():
                assert not isinstance(grpc_infer(explicit.channel, request), Refused)
            call.result()
            assert_answers(explicit, "swapped", scale=scale)
    explicit.unload("swapped")
