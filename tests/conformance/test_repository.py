"""Loading, unloading and the index, by request: the real tritonclients, raw messages and raw routes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from explicit_server import Explicit, assert_answers, config, put_mlp, refused
from model_repository import identity, write_mlp
from running_server import RunningServer
from tritonclient.grpc import service_pb2
from wire import SERVICE, Infer, Refused, fp32, grpc_call, grpc_infer

NOT_FOUND, INVALID_ARGUMENT, UNIMPLEMENTED, UNAVAILABLE = 5, 3, 12, 14
KINDS = ("grpc", "http", "grpc.aio", "http.aio")


@pytest.fixture(scope="module", params=["io_threads", "uvloop"])
def explicit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explicit]:
    folder = tmp_path_factory.mktemp("explicit")
    repository = folder / "models"
    identity(repository, "at_start", [("FP32", [4])], max_batch=8)
    identity(repository, "later", [("FP32", [4])], max_batch=8)
    threads = {"io_threads": "2", "uvloop": "0"}[request.param]
    arguments = ("--model-control-mode", "explicit", "--load-model", "at_start", "--io-threads", threads)
    with RunningServer(repository, folder, *arguments) as running:
        yield Explicit(running, repository)
        running.signal()
        assert running.wait() == 0, running.log()


@pytest.fixture(params=KINDS)
def user(request: pytest.FixtureRequest, explicit: Explicit, client_class: Any) -> Iterator[Any]:
    made = client_class(request.param, explicit.server)
    yield made
    made.close()


# --- with tritonclient


def entries(client: Any, model: str) -> list[dict[str, Any]]:
    found = client.json("get_model_repository_index")
    models = found.get("models", []) if isinstance(found, dict) else found
    return [{k: v for k, v in m.items() if k != "name"} for m in models if m["name"] == model]


def test_only_what_was_asked_for_is_loaded_at_start(explicit: Explicit) -> None:
    assert explicit.ready("at_start")
    assert explicit.index("at_start") == [("1", "READY", "")]
    identity(explicit.repository, "never_loaded", [("FP32", [4])])
    assert explicit.index("never_loaded") == [("", "", "")]
    assert explicit.index("never_loaded", ready=True) == []


def test_load_and_unload_with_tritonclient(user: Any, explicit: Explicit) -> None:
    model = f"by_{user.kind.replace('.', '_')}"
    identity(explicit.repository, model, [("FP32", [4])], max_batch=8)
    assert entries(user, model) == [{}]
    for _ in range(2):
        user.call("load_model", model)
        assert user.call("is_model_ready", model) is True
        assert entries(user, model) == [{"version": "1", "state": "READY"}]
        x = np.ones((1, 4), np.float32)
        answer = user.infer(model, {"INPUT0": ("FP32", x)})
        np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), x)
        user.call("unload_model", model)
        assert user.call("is_model_ready", model) is False
        assert entries(user, model) == [{"version": "1", "state": "UNAVAILABLE", "reason": "unloaded"}]
        with pytest.raises(Exception, match="unknown model"):
            user.infer(model, {"INPUT0": ("FP32", x)})


def test_unload_with_dependents_of_what_was_never_loaded(user: Any) -> None:
    user.call("unload_model", "later", unload_dependents=True)
    user.call("unload_model", "no_such_model")


def test_errors_of_load_with_tritonclient(user: Any, explicit: Explicit) -> None:
    with pytest.raises(
        Exception, match="failed to load 'no_such_model', failed to poll from model repository"
    ):
        user.call("load_model", "no_such_model")
    with pytest.raises(Exception, match="unknown field 'max_batchsize'"):
        user.call("load_model", "later", config='{"max_batchsize": 2}')
    if user.is_grpc:  # tritonclient 2.41 over HTTP cannot put bytes into JSON
        with pytest.raises(Exception, match="load parameter 'config' is missing"):
            user.call("load_model", "later", files={"file:1/model.onnx": b"x"})
    assert not explicit.ready("later")


# --- what a load does


def test_a_load_that_fails_says_why_and_can_be_repeated(explicit: Explicit) -> None:
    path = put_mlp(explicit, "cut")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        message = refused(explicit.load("cut"), INVALID_ARGUMENT)
        assert message.startswith("load failed for model 'cut': version 1 is at UNAVAILABLE state: ")
        assert message.endswith(";")
    ((version, state, reason),) = explicit.index("cut")
    assert (version, state) == ("1", "UNAVAILABLE")
    assert reason in message
    path.write_bytes(whole)
    assert explicit.load("cut") == service_pb2.RepositoryModelLoadResponse()
    assert_answers(explicit, "cut")


def test_a_model_whose_configuration_is_wrong(explicit: Explicit) -> None:
    identity(explicit.repository, "wrong", [("FP32", [4])])
    text = config(explicit, "wrong").read_text()
    config(explicit, "wrong").write_text(text + "max_batchsize: 3\n")
    message = refused(explicit.load("wrong"), INVALID_ARGUMENT)
    assert message.startswith("load failed for model 'wrong': wrong/config.pbtxt:")
    assert "max_batchsize" in message
    ((version, state, reason),) = explicit.index("wrong")
    assert (version, state) == ("", "UNAVAILABLE")
    assert "max_batchsize" in reason
    config(explicit, "wrong").write_text(text)
    explicit.load("wrong")
    assert explicit.index("wrong") == [("1", "READY", "")]


def test_a_model_without_versions(explicit: Explicit) -> None:
    (explicit.repository / "hollow").mkdir()
    message = refused(explicit.load("hollow"), INVALID_ARGUMENT)
    assert "load failed for model 'hollow': " in message
    assert "no version folder" in message


def test_an_unchanged_model_is_left_alone(explicit: Explicit) -> None:
    assert explicit.load("at_start") == service_pb2.RepositoryModelLoadResponse()
    assert explicit.mentions("at_start version 1 is ready") == 1


def test_a_changed_configuration_takes_effect(explicit: Explicit) -> None:
    identity(explicit.repository, "tuned", [("FP32", [4])], max_batch=8)
    explicit.load("tuned")
    config(explicit, "tuned").write_text(config(explicit, "tuned").read_text().replace("size: 8", "size: 2"))
    explicit.load("tuned")
    assert explicit.rpc("ModelConfig", name="tuned").config.max_batch_size == 2
    message = refused(grpc_infer(explicit.channel, Infer("tuned", (fp32("INPUT0", 3, 4),))), INVALID_ARGUMENT)
    assert "batch" in message


def test_a_changed_model_file_takes_effect(explicit: Explicit) -> None:
    put_mlp(explicit, "weights")
    explicit.load("weights")
    put_mlp(explicit, "weights", scale=-2.0)
    assert_answers(explicit, "weights")  # not before a load
    explicit.load("weights")
    assert_answers(explicit, "weights", scale=-2.0)


def test_a_reload_that_fails_leaves_the_old_version(explicit: Explicit) -> None:
    path = put_mlp(explicit, "steady")
    explicit.load("steady")
    path.write_bytes(b"this is no model any more")
    message = refused(explicit.load("steady"), INVALID_ARGUMENT)
    assert "load failed for model 'steady': version 1 is at UNAVAILABLE state: " in message
    ((version, state, reason),) = explicit.index("steady")
    assert (version, state) == ("1", "READY")
    assert "serves on as it was" in reason
    assert_answers(explicit, "steady")
    config(explicit, "steady").write_text("nonsense: 1")
    message = refused(explicit.load("steady"), INVALID_ARGUMENT)
    assert "steady/config.pbtxt:1" in message
    assert explicit.index("steady")[0][:2] == ("1", "READY")
    assert_answers(explicit, "steady")
    config(explicit, "steady").unlink()
    write_mlp(path)
    explicit.load("steady")
    assert explicit.index("steady") == [("1", "READY", "")]


def test_a_new_version_takes_the_place_of_the_old(explicit: Explicit) -> None:
    put_mlp(explicit, "grows")
    explicit.load("grows")
    put_mlp(explicit, "grows", version=2, scale=3.0)
    explicit.load("grows")
    assert explicit.index("grows") == [("1", "UNAVAILABLE", "unloaded"), ("2", "READY", "")]
    assert_answers(explicit, "grows", scale=3.0)
    (explicit.repository / "grows" / "2" / "model.onnx").unlink()
    (explicit.repository / "grows" / "2").rmdir()
    explicit.load("grows")
    assert explicit.index("grows") == [("1", "READY", ""), ("2", "UNAVAILABLE", "unloaded")]


def test_a_new_version_that_fails_leaves_the_old(explicit: Explicit) -> None:
    put_mlp(explicit, "careful")
    explicit.load("careful")
    put_mlp(explicit, "careful", version=2).write_bytes(b"no")
    message = refused(explicit.load("careful"), INVALID_ARGUMENT)
    assert "version 2 is at UNAVAILABLE state" in message
    assert explicit.ready("careful", "1")
    assert_answers(explicit, "careful")
    put_mlp(explicit, "careful", version=2, scale=2.0)
    explicit.load("careful")
    assert [state for _, state, _ in explicit.index("careful")] == ["UNAVAILABLE", "READY"]


def test_all_versions_of_a_policy(explicit: Explicit) -> None:
    identity(explicit.repository, "many", [("FP32", [4])], versions=(1, 2), extra="version_policy { all {} }")
    explicit.load("many")
    (explicit.repository / "many" / "5").mkdir()
    (explicit.repository / "many" / "1").rmdir()
    explicit.load("many")
    assert [(v, s) for v, s, _ in explicit.index("many", ready=True)] == [("2", "READY"), ("5", "READY")]


# --- requests and operations at the same time


def in_background(work: Callable[[], Any]) -> Any:
    return ThreadPoolExecutor(1).submit(work)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_requests_in_flight_are_answered_when_their_model_goes(explicit: Explicit) -> None:
    identity(explicit.repository, "patient", [("FP32", [4])], max_batch=1, delay_s=0.3)
    explicit.load("patient")
    request = Infer("patient", (fp32("INPUT0", 1, 4),))
    answers = [in_background(lambda: grpc_infer(explicit.channel, request)) for _ in range(3)]
    statistics = service_pb2.ModelStatisticsRequest(name="patient").SerializeToString()
    assert not isinstance(grpc_call(explicit.channel, SERVICE + "ModelStatistics", statistics), Refused)
    wait_until(
        lambda: (
            explicit.server.scrape()['nv_inference_pending_request_count{model="patient",version="1"}'] >= 1
        )
    )
    assert explicit.unload("patient") == service_pb2.RepositoryModelUnloadResponse()
    assert not any(isinstance(answer.result(20), Refused) for answer in answers)
    refused(grpc_infer(explicit.channel, request), NOT_FOUND)


def test_nothing_fails_while_a_model_is_loaded_again_and_again(explicit: Explicit) -> None:
    identity(explicit.repository, "busy", [("FP32", [4])], max_batch=8)
    explicit.load("busy")
    stop = threading.Event()

    def ask() -> tuple[int, list[Refused]]:
        request, count, failed = Infer("busy", (fp32("INPUT0", 1, 4),)), 0, []
        with grpc.insecure_channel(explicit.server.grpc) as channel:
            while not stop.is_set():
                answer = grpc_infer(channel, request)
                count += 1
                if isinstance(answer, Refused):
                    failed.append(answer)
        return count, failed

    asking = [in_background(ask) for _ in range(3)]
    text = config(explicit, "busy").read_text()
    for size in (2, 4, 6, 7):
        config(explicit, "busy").write_text(text.replace("size: 8", f"size: {size}"))
        assert not isinstance(explicit.load("busy"), Refused)
    stop.set()
    counts, failed = zip(*(one.result(20) for one in asking), strict=True)
    assert min(counts) > 0
    assert [f for one in failed for f in one] == []


def test_loads_of_one_model_wait_for_each_other(explicit: Explicit) -> None:
    identity(explicit.repository, "wanted_by_all", [("FP32", [4])], delay_s=0.05)
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: explicit.load("wanted_by_all"), range(12)))
    assert not any(isinstance(answer, Refused) for answer in answers)
    assert explicit.mentions("wanted_by_all version 1 is ready") == 1


def test_an_unload_waits_for_the_load_before_it(explicit: Explicit) -> None:
    identity(explicit.repository, "slow_start", [("FP32", [4])], max_batch=1, delay_s=0.5)
    loading = in_background(lambda: explicit.load("slow_start"))
    wait_until(lambda: [s for _, s, _ in explicit.index("slow_start")] == ["LOADING"])
    assert not explicit.ready("slow_start")
    assert explicit.unload("slow_start") == service_pb2.RepositoryModelUnloadResponse()
    assert loading.result(20) == service_pb2.RepositoryModelLoadResponse()
    assert explicit.index("slow_start") == [("1", "UNAVAILABLE", "unloaded")]


def test_a_client_that_goes_away_does_not_stop_its_load(explicit: Explicit) -> None:
    identity(explicit.repository, "abandoned", [("FP32", [4])], max_batch=1, delay_s=0.5)
    request = service_pb2.RepositoryModelLoadRequest(model_name="abandoned").SerializeToString()
    answer = grpc_call(explicit.channel, SERVICE + "RepositoryModelLoad", request, timeout=0.15)
    assert refused(answer, 4)
    assert not explicit.ready("abandoned")
    wait_until(lambda: explicit.ready("abandoned"))


# --- bad input


@pytest.mark.parametrize(
    ("parameters", "code", "words"),
    [
        ({"config": {"string_param": "{"}}, INVALID_ARGUMENT, "load parameter 'config': is no JSON"),
        ({"file:1/model.onnx": {"bytes_param": b"x"}}, INVALID_ARGUMENT, "'file:1/model.onnx'"),
        (
            {"config": {"int64_param": 1}},
            INVALID_ARGUMENT,
            "invalid value type for load parameter 'config', expected string_param.",
        ),
        (
            {"file:a": {"string_param": "x"}},
            INVALID_ARGUMENT,
            "invalid value type for load parameter 'file:a', expected bytes_param.",
        ),
        ({"config": {}}, INVALID_ARGUMENT, "expected string_param"),
        ({"surprise": {"bool_param": True}}, INVALID_ARGUMENT, "unrecognized load parameter 'surprise'."),
        ({"x" * 500: {"bool_param": True}}, INVALID_ARGUMENT, "unrecognized load parameter 'xxx"),
    ],
)
def test_parameters_of_load(explicit: Explicit, parameters: dict[str, Any], code: int, words: str) -> None:
    made = {k: service_pb2.ModelRepositoryParameter(**v) for k, v in parameters.items()}
    answer = explicit.rpc("RepositoryModelLoad", model_name="at_start", parameters=made)
    message = refused(answer, code)
    assert words in message
    assert len(message) < 400


def test_parameters_of_unload(explicit: Explicit) -> None:
    for key, value, words in (
        ("unload_dependents", {"string_param": "yes"}, "'unload_dependents', expected bool_param."),
        ("surprise", {"bool_param": True}, "unrecognized unload parameter 'surprise'."),
    ):
        made = {key: service_pb2.ModelRepositoryParameter(**value)}
        answer = explicit.rpc("RepositoryModelUnload", model_name="at_start", parameters=made)
        assert words in refused(answer, INVALID_ARGUMENT)
    assert explicit.ready("at_start")


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
@pytest.mark.parametrize("name", ["", "..", "a/../b", "/etc", "a\0b", "x" * 129])
def test_names_that_are_none(explicit: Explicit, method: str, name: str) -> None:
    assert "is no model name" in refused(explicit.rpc(method, model_name=name), INVALID_ARGUMENT)


def test_repositories_have_no_names(explicit: Explicit) -> None:
    words = "'repository_name' specification is not supported"
    for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
        answer = explicit.rpc(method, repository_name="r", model_name="at_start")
        assert words in refused(answer, UNIMPLEMENTED)
    assert words in refused(explicit.rpc("RepositoryIndex", repository_name="r"), UNIMPLEMENTED)
    for path in ("index", "models/at_start/load", "models/at_start/unload"):
        status, answered = explicit.rest.post(f"/v2/repository/r/{path}", b"")
        assert (status, words in answered["error"]) == (501, True)
    assert explicit.ready("at_start")


@pytest.mark.parametrize(
    ("target", "body", "status", "words"),
    [
        ("models/no_such_model/load", b"", 404, "failed to load 'no_such_model', failed to poll"),
        ("models/no_such_model/unload", b"", 200, ""),
        ("models/at_start/load", b"{}", 200, ""),
        ("models/at_start/load", b"{", 400, "JSON"),
        ("models/at_start/load", b"[]", 400, "JSON object"),
        ("models/at_start/load", b'{"parameters":3}', 400, "parameters"),
        ("models/at_start/load", b'{"parameters":{"config":{}}}', 400, "config"),
        ("models/at_start/load", b'{"parameters":{"config":"[]"}}', 400, "'config': got an array"),
        ("models/at_start/load", b'{"parameters":{"file:1/m":"eA=="}}', 400, "'file:1/m'"),
        ("models/at_start/load", b'{"parameters":{"file:1/m":"%"}}', 400, "base64"),
        ("models/at_start/load", b'{"parameters":{"file:1/m":3}}', 400, "expected bytes_param"),
        ("models/at_start/load", b'{"parameters":{"x":1}}', 400, "unrecognized load parameter 'x'."),
        ("models/at_start/unload", b'{"parameters":{"unload_dependents":"no"}}', 400, "unload_dependents"),
        ("models/%2E%2E/load", b"", 400, "is no model name"),
        ("index", b'{"ready":1}', 400, "ready"),
    ],
)
def test_routes(explicit: Explicit, target: str, body: bytes, status: int, words: str) -> None:
    got, answered = explicit.rest.post(f"/v2/repository/{target}", body)
    assert got == status, answered
    assert words in json.dumps(answered)


def test_the_routes_are_post_only(explicit: Explicit) -> None:
    for path in ("index", "models/at_start/load", "models/at_start/unload"):
        status, headers, _ = explicit.rest.ask("GET", f"/v2/repository/{path}")
        assert (status, headers["allow"]) == (405, "POST")


def test_the_index_over_rest(explicit: Explicit) -> None:
    status, found = explicit.rest.post("/v2/repository/index", b'{"ready":true}')
    assert status == 200
    assert {"name": "at_start", "version": "1", "state": "READY"} in found
    assert {entry["state"] for entry in found} == {"READY"}


# --- mode none


def test_in_mode_none_nothing_is_loaded_or_unloaded(client: Any) -> None:
    for method in ("load_model", "unload_model"):
        with pytest.raises(Exception, match="explicit model load / unload is not allowed") as caught:
            client.call(method, "mlp")
        assert caught.value.status() in {"StatusCode.UNAVAILABLE", "503"}
    assert client.call("is_model_ready", "mlp") is True


def test_in_mode_none_the_index_has_everything(client: Any) -> None:
    found = client.json("get_model_repository_index")
    models = {(m["name"], m.get("version", "")): m for m in (found["models"] if client.is_grpc else found)}
    assert models["versions", "3"]["state"] == "READY"
    assert models["broken", "1"]["state"] == "UNAVAILABLE"
    assert "max_batchsize" in models["misspelt", ""]["reason"]


def test_the_extensions_are_named(client: Any) -> None:
    extensions = client.json("get_server_metadata")["extensions"]
    assert {"model_repository", "model_repository(unload_dependents)", "trace", "logging"} <= set(extensions)
