"""Registrations over REST whose bodies tritonclient does not write."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest
from client_memory import U64, created, key_of
from running_server import RunningServer

pytestmark = pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")


def post(server: RunningServer, path: str, body: Any) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{server.http}{path}", data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "key: missing, want a text"),
        ({"key": 7, "byte_size": 1}, "key: got another type, want a text"),
        ({"key": "/x"}, "byte_size: missing, want a whole number"),
        ({"key": "/x", "byte_size": "1"}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": 1.5}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": True}, "byte_size: got another type"),
        ({"key": "/x", "byte_size": -1}, "byte_size: got -1, want 0 to 18446744073709551615"),
        ({"key": "/x", "byte_size": U64 + 1}, "byte_size: got 18446744073709551616"),
        ({"key": "/x", "byte_size": 1, "offset": -1}, "offset: got -1"),
        ({"key": "/x", "byte_size": 1, "offset": None}, "offset: missing"),
        ([], "the request body has to be a JSON object"),
        (b"{", "failed to parse the request body as JSON"),
    ],
)
def test_registrations_over_rest_are_checked(own_server: RunningServer, body: Any, words: str) -> None:
    status, text = post(own_server, "/v2/systemsharedmemory/region/r/register", body)
    assert (status, words in text) == (400, True), text


def test_names_in_paths(own_server: RunningServer) -> None:
    with created("path", 64):
        body = {"key": key_of("path"), "byte_size": 64}
        for name in ("a b", "ä", "%", "?", "a+b", "..", "x" * 256):
            quoted = urllib.parse.quote(name, safe="")
            assert post(own_server, f"/v2/systemsharedmemory/region/{quoted}/register", body)[0] == 200, name
            with urllib.request.urlopen(
                f"http://{own_server.http}/v2/systemsharedmemory/region/{quoted}/status", timeout=5
            ) as response:
                assert json.load(response)[0]["name"] == name
            assert post(own_server, f"/v2/systemsharedmemory/region/{quoted}/unregister", {})[0] == 200
        for name in ("a%00b", "a%0Ab", "x" * 257, "a%7F"):
            assert post(own_server, f"/v2/systemsharedmemory/region/{name}/register", body)[0] == 400, name
        for path in ("region//register", "region/a/b/register", "region/register", "a/register"):
            assert post(own_server, f"/v2/systemsharedmemory/{path}", body)[0] in (404, 405), path
    assert "fs-" not in own_server.scrape()
