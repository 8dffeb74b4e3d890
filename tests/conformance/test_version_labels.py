"""Labels over gRPC and REST with tritonclient: the model answers by a label as by a number, 950 of 1,000 go where they shall,
and labels may come before their versions. The server that all other tests share is left as it was."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from running_server import command

from fastserve import protos

MODEL = "versions"  # 1, 3 and 7 are served
INPUTS = {"INPUT0": ("FP32", np.arange(4, dtype=np.float32))}
PATH = f"/v2/repository/models/{MODEL}/labels"


def ask(server: Any, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.http}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def shown(labels: dict[str, Any]) -> dict[str, dict[int, int]]:
    return {
        label["name"]: {v["version"]: v["weight"] for v in label["versions"]} for label in labels["labels"]
    }


@pytest.fixture(autouse=True)
def without_labels(server: Any) -> Iterator[None]:
    yield
    ask(server, "DELETE", PATH)


def assign(server: Any, **labels: Any) -> None:
    status, body = ask(server, "PUT", PATH, {"labels": labels})
    assert status == 200, body


def version_of(client: Any, version: str = "", **parameters: Any) -> str:
    result = client.infer(MODEL, INPUTS, model_version=version, **parameters)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), INPUTS["INPUT0"][1])
    answer = result.get_response()
    return str(answer.model_version if client.is_grpc else answer["model_version"])


def refusal(client: Any, version: str) -> tuple[str, str]:
    with pytest.raises(Exception, match=r"\S") as refused:
        client.infer(MODEL, INPUTS, model_version=version)
    error: Any = refused.value
    return str(error.status()), error.message()


def test_a_label_is_as_good_as_a_number(server: Any, client: Any) -> None:
    assign(server, stable=3)
    assert version_of(client, "stable") == "3"
    assert version_of(client) == "7"
    assert client.call("is_model_ready", MODEL, "stable")
    assert client.json("get_model_metadata", MODEL, "stable")["versions"] == ["3"]
    config = client.json("get_model_config", MODEL, "stable")
    assert (config["config"] if client.is_grpc else config)["name"] == MODEL
    (stats,) = client.json("get_inference_statistics", MODEL, "stable")["model_stats"]
    assert stats["version"] == "3"


def test_a_canary_gets_its_share(server: Any, client: Any) -> None:
    assign(server, canary={3: 95, 7: 5})
    got = Counter(version_of(client, "canary") for _ in range(200))
    # Each I/O thread keeps its own turns; one connection is on one of them.
    assert got.total() == 200
    assert abs(got["7"] - 10) <= 1


def test_default_is_for_requests_without_a_version(server: Any, client: Any) -> None:
    assign(server, default=3)
    assert version_of(client) == "3"
    assert version_of(client, "7") == "7"
    assert client.json("get_model_metadata", MODEL)["name"] == MODEL
    assign(server, default=99)  # not there: the highest that is ready, as without the label
    assert version_of(client) == "7"


def test_a_key_or_a_sequence_stays_on_its_version(server: Any, client: Any) -> None:
    assign(server, half={3: 1, 7: 1})
    keys = {
        key: {version_of(client, "half", parameters={"routing_key": key}) for _ in range(4)}
        for key in map(str, range(20))
    }
    assert all(len(versions) == 1 for versions in keys.values())
    assert set().union(*keys.values()) == {"3", "7"}
    if client.is_grpc or client.kind == "http":
        assert len({version_of(client, "half", sequence_id=5) for _ in range(6)}) == 1


def test_labels_may_come_before_their_versions(server: Any, client: Any) -> None:
    assign(server, next=8, both={8: 1, 9: 1})
    status, message = refusal(client, "next")
    assert status in {"StatusCode.FAILED_PRECONDITION", "400"}
    assert "model 'versions' label 'next': version 8 is not at ready state" in message
    assert "versions 8, 9 are not at ready state" in refusal(client, "both")[1]
    assert not client.call("is_model_ready", MODEL, "next")
    status, message = refusal(client, "nobody")
    assert status in {"StatusCode.INVALID_ARGUMENT", "400"}
    assert "failed to get model version from specified version string 'nobody'" in message


def test_rest_shows_and_changes_labels(server: Any) -> None:
    assert ask(server, "GET", PATH) == (200, {"model": MODEL, "labels": []})
    status, label = ask(server, "PUT", f"{PATH}/canary", {"versions": {"3": 0.95, "8": 0.05}})
    assert status == 200
    assert label == {
        "name": "canary",
        "source": "assigned",
        "versions": [
            {"version": 3, "weight": 95, "ready": True, "requests": 0},
            {"version": 8, "weight": 5, "ready": False, "requests": 0},
        ],
    }
    assert ask(server, "GET", f"{PATH}/canary") == (200, label)
    assert ask(server, "GET", f"{PATH}/other")[0] == 404
    # Promoted: both at once, and only from where it is.
    promoted = {
        "labels": {"stable": 3, "canary": None},
        "expected": {"canary": {"3": 95, "8": 5}, "stable": None},
    }
    assert shown(ask(server, "PUT", PATH, promoted)[1]) == {"stable": {3: 1}}
    status, body = ask(server, "PUT", PATH, promoted)
    assert (status, body) == (400, {"error": "label 'canary' of model 'versions' is not there, not 3:95,8:5"})
    assert ask(server, "PUT", f"{PATH}/stable", {"versions": 7, "expected": 1})[0] == 400
    assert ask(server, "DELETE", f"{PATH}/stable") == (200, {"model": MODEL, "labels": []})
    assert ask(server, "DELETE", f"{PATH}/stable")[0] == 404
    assert ask(server, "POST", PATH)[0] == 405


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "labels: is missing"),
        ({"labels": []}, "labels: want a JSON object"),
        ({"label": {}}, '"label": unknown'),
        ({"labels": {"a": []}}, 'labels["a"]: got []'),
        ({"labels": {"a": {}}}, 'labels["a"]: names no version'),
        ({"labels": {"a": {"x": 1}}}, 'labels["a"]: got x'),
        ({"labels": {"a": {"1": "x"}}}, 'labels["a"]["1"]: want a number'),
        ({"labels": {"a": {"1": 1_000_001}}}, 'labels["a"][1]: got weight 1000001'),
        ({"labels": {"a": {"1": 0}}}, 'labels["a"]: all weights are 0'),
        ({"labels": {"3": 1}}, 'labels["3"]: want a letter'),
        ({"labels": {"a": 1.5}}, 'labels["a"]: got 1.5'),
    ],
)
def test_bad_changes_are_refused_by_name(server: Any, body: Any, words: str) -> None:
    status, answer = ask(server, "PUT", PATH, body)
    assert status == 400
    assert words in answer["error"]


def test_a_model_that_is_nowhere_has_no_labels(server: Any) -> None:
    for method, body in (("GET", None), ("PUT", {"labels": {"a": 1}})):
        status, answer = ask(server, method, PATH.replace(MODEL, "nowhere"), body)
        assert status == 404
        assert answer["error"] == "Request for unknown model: 'nowhere' is not found"


def call(channel: grpc.Channel, name: str, request: Any) -> Any:
    answer = protos.message_class("fastserve.LabelsResponse")
    method = channel.unary_unary(
        f"/fastserve.ModelLabels/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return method(request, timeout=10)


def test_grpc_shows_and_changes_labels(channel: grpc.Channel) -> None:
    change = protos.message_class("fastserve.ChangeLabelsRequest")(model_name=MODEL)
    change.labels["canary"].weights.update({3: 95, 7: 5})
    (label,) = call(channel, "ChangeLabels", change).labels
    assert (label.name, label.source) == ("canary", "assigned")
    assert [(v.version, v.weight, v.ready) for v in label.versions] == [(3, 95, True), (7, 5, True)]
    request = protos.message_class("fastserve.GetLabelsRequest")(model_name=MODEL)
    assert [label.name for label in call(channel, "GetLabels", request).labels] == ["canary"]
    change.expected["canary"].weights[3] = 1
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, "ChangeLabels", change)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    removal = protos.message_class("fastserve.ChangeLabelsRequest")(model_name=MODEL)
    removal.labels["canary"].SetInParent()
    assert not call(channel, "ChangeLabels", removal).labels


def test_the_command_line_and_the_metrics(server: Any) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            command("label", MODEL, *arguments, "--url", server.http),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    assert run() == (0, "versions has no labels\n")
    code, out = run("stable=3", "canary=3:95,8:5")
    assert code == 0
    assert re.search(
        r"canary +version +3 +95.00% +ready +0 requests +assigned\n +version +8 +5.00% +not ready", out
    )
    scraped = server.scrape()
    assert scraped['fastserve_version_weight{model="versions",label="canary",version="8"}'] == 5
    assert scraped['fastserve_label_requests_total{model="versions",label="stable",version="3"}'] == 0
    code, out = run("stable=7", "--remove", "canary", "--if", "stable=1")
    assert code == 1
    assert "label 'stable' of model 'versions' is 3, not 1" in out
    code, out = run("stable=7", "--remove", "canary", "--if", "stable=3", "--json")
    assert shown({"labels": json.loads(out)}) == {"stable": {7: 1}}
    assert run("stable")[0] == 2
