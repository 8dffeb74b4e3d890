"""Routes, statuses and bodies of Triton's REST, over the fake engine of conftest."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served


async def ask(served: Served, http_call: Any, method: str, target: str, body: bytes = b"") -> Any:
    """The call, with `json` set when there is a body."""
    call = http_call(method, target, body)
    AsgiDriver(rest_app(served)).on_call(call)
    async with asyncio.timeout(5):
        while not call.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
    call.json = json.loads(call.response) if call.response else None
    return call


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/plain/ready", {"name": "plain", "ready": True}),
        ("/v2/models/plain/versions/1/ready", {"name": "plain", "ready": True}),
    ],
)
async def test_health(served: Served, http_call: Any, target: str, body: Any) -> None:
    call = await ask(served, http_call, "GET", target)
    assert (call.status, call.json) == (200, body)
    assert call.response_headers[b"content-type"] == b"application/json"
    call = await ask(served, http_call, "HEAD", target)
    assert (call.status, call.response) == (200, b"")


async def test_not_ready(served: Served, http_call: Any) -> None:
    served.ready.set(False)
    assert (await ask(served, http_call, "GET", "/v2/health/ready")).status == 400
    assert (await ask(served, http_call, "GET", "/v2/health/live")).status == 200


@pytest.mark.parametrize("model", ["no", "broken", "plain/versions/4", "plain/versions/9"])
async def test_a_model_that_is_not_ready_or_not_there_is_400(
    served: Served, http_call: Any, model: str
) -> None:
    call = await ask(served, http_call, "GET", f"/v2/models/{model}/ready")
    assert (call.status, call.json) == (400, {"error": "Model version not ready"})


async def test_server_metadata(served: Served, http_call: Any) -> None:
    call = await ask(served, http_call, "GET", "/v2")
    assert (call.json["name"], call.json["version"]) == ("fastserve", "1.2.3")
    assert "statistics" in call.json["extensions"]


async def test_model_metadata(served: Served, http_call: Any) -> None:
    call = await ask(served, http_call, "GET", "/v2/models/plain")
    assert call.json == {
        "name": "plain",
        "versions": ["1", "3"],
        "platform": "identity",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        "properties": {},
    }
    assert (await ask(served, http_call, "GET", "/v2/models/plain/versions/3")).json["versions"] == ["3"]


async def test_model_config_has_numbers_and_no_batch_dimension(served: Served, http_call: Any) -> None:
    call = await ask(served, http_call, "GET", "/v2/models/plain/config")
    assert call.status == 200
    assert (call.json["name"], call.json["max_batch_size"]) == ("plain", 8)
    assert call.json["input"][0]["dims"] == [4]
    assert call.json["input"][0]["data_type"] == "TYPE_FP32"


async def test_statistics(served: Served, http_call: Any) -> None:
    everything = await ask(served, http_call, "GET", "/v2/models/stats")
    assert [(s["name"], s["version"]) for s in everything.json["model_stats"]] == [
        ("plain", "3"),
        ("plain", "1"),
    ]
    one = await ask(served, http_call, "GET", "/v2/models/plain/versions/3/stats")
    (stats,) = one.json["model_stats"]
    assert stats["inference_stats"]["success"] == {"count": 10, "ns": 1_000_000}


async def test_repository_index(served: Served, http_call: Any) -> None:
    call = await ask(served, http_call, "POST", "/v2/repository/index")
    assert {"name": "plain", "version": "3", "state": "READY"} in call.json
    assert {
        "name": "unreadable",
        "state": "UNAVAILABLE",
        "reason": "config.pbtxt:3: unknown field 'inptu'",
    } in call.json
    call = await ask(served, http_call, "POST", "/v2/repository/index", b'{"ready": true}')
    assert {entry["state"] for entry in call.json} == {"READY"}


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"ready": 1}', b"\xff", b"[" * 200_000, b'{"ready": "\\ud800"}', b"1" * 10_000],
    ids=["cut", "array", "number", "not-utf8", "deep", "surrogate", "digits"],
)
async def test_bad_json_is_400(served: Served, http_call: Any, body: bytes) -> None:
    call = await ask(served, http_call, "POST", "/v2/repository/index", body)
    assert call.status == 400
    assert len(call.response) < 300


@pytest.mark.parametrize(
    "target",
    [
        "/v1",
        "/v2/",
        "/v2/models",
        "/v2/models/",
        "/v2/models/a%2Fb",
        "/v2/models/a/b",
        "/v2//health/live",
        "/V2",
    ],
)
async def test_unknown_paths_are_404(served: Served, http_call: Any, target: str) -> None:
    call = await ask(served, http_call, "GET", target)
    assert (call.status, call.json) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/v2/health/live", b"GET, HEAD"),
        ("DELETE", "/v2/models/plain", b"GET, HEAD"),
        ("GET", "/v2/models/plain/infer", b"POST"),
        ("GET", "/v2/models/plain/versions/1/infer", b"POST"),
        ("GET", "/v2/repository/index", b"POST"),
    ],
)
async def test_wrong_methods_are_405(
    served: Served, http_call: Any, method: str, target: str, allow: bytes
) -> None:
    call = await ask(served, http_call, method, target)
    assert (call.status, call.response_headers[b"allow"]) == (405, allow)
    assert list(call.json) == ["error"]


@pytest.mark.parametrize("suffix", ["", "/config", "/stats"])
async def test_unknown_models_and_versions_are_404_in_tritons_words(
    served: Served, http_call: Any, suffix: str
) -> None:
    call = await ask(served, http_call, "GET", f"/v2/models/no{suffix}")
    assert (call.status, call.json) == (404, {"error": "Request for unknown model: 'no' is not found"})
    assert (await ask(served, http_call, "GET", f"/v2/models/plain/versions/9{suffix}")).status == 404


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "a%00b", "x" * 129, "a%0d%0ab", "caf%C3%A9", "%252e%252e"]
)
async def test_names_are_checked(served: Served, http_call: Any, name: str) -> None:
    call = await ask(served, http_call, "GET", f"/v2/models/{name}")
    assert call.status == 400
    assert len(call.response) < 400


@pytest.mark.parametrize("version", ["abc", "-1", "0", "1.0", "99999999999999999999", "%C2%B9"])
async def test_versions_are_checked(served: Served, http_call: Any, version: str) -> None:
    call = await ask(served, http_call, "GET", f"/v2/models/plain/versions/{version}")
    assert call.status == 400
    assert "version" in call.json["error"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"raw_handle": {"b64": "aGFuZGxl"}, "byte_size": 64}, ""),
        ({"raw_handle": {"b64": "aGFuZGxl"}, "device_id": 1, "byte_size": 64}, ""),
        (
            {"raw_handle": {"b64": "no base64!"}, "byte_size": 64},
            "raw_handle.b64: got a text that is no base64",
        ),
        ({"raw_handle": "aGFuZGxl", "byte_size": 64}, 'raw_handle: want {"b64": "..."}'),
        ({"byte_size": 64}, "raw_handle"),
        ({"raw_handle": {"b64": "aGFuZGxl"}}, "byte_size: missing"),
        ({"raw_handle": {"b64": "aGFuZGxl"}, "byte_size": -1}, "byte_size: got -1"),
        (
            {"raw_handle": {"b64": "aGFuZGxl"}, "device_id": "0", "byte_size": 1},
            "device_id: got another type",
        ),
        ({"raw_handle": {"b64": "aGFuZGxl"}, "device_id": 1 << 63, "byte_size": 1}, "device_id: got"),
    ],
)
async def test_cuda_memory_is_registered_by_its_handle(
    served: Served, core: Any, http_call: Any, body: dict[str, Any], error: str
) -> None:
    core.shared_memory_allowed = core.has_gpu = True
    route = "/v2/cudasharedmemory/region/g"
    call = await ask(served, http_call, "POST", f"{route}/register", json.dumps(body).encode())
    assert call.status == (400 if error else 200), call.json
    if error:
        assert error in call.json["error"]
        assert not core.cuda_regions
        return
    region = {"name": "g", "device_id": body.get("device_id", 0), "byte_size": 64}
    assert (await ask(served, http_call, "GET", f"{route}/status")).json == [region]
    assert (await ask(served, http_call, "POST", f"{route}/unregister")).status == 200
    assert (await ask(served, http_call, "GET", "/v2/cudasharedmemory/status")).json == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/cudasharedmemory/region/r/status"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/cudasharedmemory/region/r/unregister"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("POST", "/v2/models/plain/generate"),
    ],
)
async def test_what_is_not_there_yet_is_501(served: Served, http_call: Any, method: str, target: str) -> None:
    call = await ask(served, http_call, method, target)
    assert call.status == 501
    assert call.json["error"]
