"""Every route of Triton's REST (contracts §1) with its methods, over HTTP/1.1 and HTTP/2 alike: same routes, same answers."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from wire import Rest

BODY: dict[str, Any] = {
    "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1, 4], "data": [1, 2.5, -3, 4]}]
}
READS = ("GET", "HEAD")
# Path, methods, the status of the first one.
ROUTES: list[tuple[str, tuple[str, ...], int]] = [
    ("/v2", READS, 200),
    ("/v2/health/live", READS, 200),
    ("/v2/health/ready", READS, 200),
    ("/v2/models/stats", READS, 200),
    ("/v2/repository/index", ("POST",), 200),
    ("/v2/repository/any/index", ("POST",), 501),
    ("/", READS, 200),
    ("/openapi.json", READS, 200),
    ("/docs", READS, 200),
    ("/docs/page.js", READS, 200),
    ("/docs/page.css", READS, 200),
    *(
        (f"/v2/models/batch_fp32{version}{suffix}", methods, status)
        for version in ("", "/versions/1")
        for suffix, methods, status in (
            ("", READS, 200),
            ("/ready", READS, 200),
            ("/config", READS, 200),
            ("/stats", READS, 200),
            ("/infer", ("POST",), 200),
            ("/generate", ("POST",), 501),
            ("/generate_stream", ("POST",), 501),
        )
    ),
]


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def http(request: pytest.FixtureRequest, server: Any) -> Iterator[httpx.Client]:
    second = request.param == "HTTP/2"
    with httpx.Client(base_url=f"http://{server.http}", http1=not second, http2=second, timeout=20) as client:
        assert client.get("/v2/health/live").http_version == request.param
        yield client


def ask(http: httpx.Client, method: str, path: str) -> httpx.Response:
    content = json.dumps(BODY if path.endswith("/infer") else {}).encode() if method == "POST" else None
    return http.request(method, path, content=content)


@pytest.mark.parametrize(("path", "methods", "status"), ROUTES, ids=[route[0] for route in ROUTES])
def test_routes_and_their_methods(
    http: httpx.Client, path: str, methods: tuple[str, ...], status: int
) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = ask(http, method, path)
        allowed = answer.headers.get("allow", "")
        if method in methods:
            assert answer.status_code == status, (method, answer.text)
        elif method == "OPTIONS":
            assert (answer.status_code, answer.content) == (204, b"")
            assert set(allowed.split(", ")) == {*methods, "OPTIONS"}
        else:
            assert answer.status_code == 405, method
            assert set(allowed.split(", ")) == set(methods)
            if method != "HEAD":
                assert list(answer.json()) == ["error"]


@pytest.mark.parametrize("path", [path for path, methods, _ in ROUTES if "HEAD" in methods])
def test_head_is_get_without_the_body(http: httpx.Client, path: str) -> None:
    get = http.get(path, headers={"accept-encoding": "identity"})
    head = http.head(path, headers={"accept-encoding": "identity"})
    assert head.content == b""
    # Statistics change from one request to the next, their length with them.
    same = set(get.headers) - ({"content-length"} if path.endswith("stats") else set())
    assert {k: head.headers[k] for k in same} == {k: get.headers[k] for k in same}


def test_options_of_the_whole_server(server: Any) -> None:
    host, port = server.http.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 204 ")


def test_both_versions_answer_alike(server: Any) -> None:
    paths = [p for p, methods, _ in ROUTES if "GET" in methods and not p.endswith("stats")]
    requests = [("GET", path) for path in paths] + [
        ("POST", "/v2/models/batch_fp32/infer"),
        ("POST", "/v2/models/nothing/infer"),
        ("POST", "/v2/models/batch_fp32/versions/9/infer"),
        ("POST", "/v2/models/%zz/infer"),
        ("GET", "/v3"),
        ("GET", "/v2/models/a%2fb"),
        ("PUT", "/v2"),
    ]
    found = []
    for second in (False, True):
        with httpx.Client(base_url=f"http://{server.http}", http1=not second, http2=second) as client:
            answers = [ask(client, method, path) for method, path in requests]
            found.append([(a.status_code, dict(a.headers), a.content) for a in answers])
    assert found[0] == found[1]


def test_browsers_are_sent_to_the_page_others_get_links(http: httpx.Client) -> None:
    to_page = http.get("/", headers={"accept": "text/html,*/*"})
    assert (to_page.status_code, to_page.headers["location"]) == (307, "/docs")
    links = http.get("/", headers={"accept": "*/*"}).json()
    for target in (links["docs"], links["openapi"], links["server"], links["ready"]):
        assert http.get(target).status_code == 200


def test_the_page_asks_nobody_else(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    texts = [page.text, http.get("/docs/page.js").text, http.get("/docs/page.css").text]
    for text in texts:
        assert not re.search(r"https?://|\beval\(|innerHTML|new Function|document\.write", text)
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert asset.startswith("/")
        assert http.get(asset).status_code == 200
    assert http.get("/docs/../rest_app.py").status_code == 404
    assert http.get("/docs/page.html").status_code == 404


# --- a client that goes away


def scraped(server: Any, name: str, model: str) -> float:
    found = server.scrape()
    return sum(v for k, v in found.items() if k.startswith(name + "{") and f'model="{model}"' in k)


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("goes", ["closes", "resets"])
def test_a_client_that_goes_gives_its_queue_place_back(server: Any, goes: str) -> None:
    """`tight` runs one request at a time and lets two wait: with two gone, two others find room at once."""
    rest = Rest(server.http)
    host, port = server.http.split(":")
    body = json.dumps(BODY).encode()
    request = b"POST /v2/models/tight/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )

    def connect() -> socket.socket:
        opened = socket.create_connection((host, int(port)), timeout=10)
        opened.sendall(request)
        return opened

    def cancelled() -> float:
        found = server.scrape().items()
        return sum(v for k, v in found if "request_failure" in k and '"tight"' in k and "CANCELED" in k)

    before = cancelled()
    running = connect()
    wait_for(lambda: scraped(server, "nv_inference_pending_request_count", "tight") == 0)
    leaving = [connect() for _ in range(2)]
    wait_for(lambda: scraped(server, "nv_inference_pending_request_count", "tight") == 2)
    status, answer = rest.post("/v2/models/tight/infer", body)
    assert (status, "Exceeds maximum queue size" in answer["error"]) == (503, True)
    for gone in leaving:
        if goes == "resets":  # instead of FIN
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
    wait_for(lambda: cancelled() == before + 2)
    assert scraped(server, "nv_inference_pending_request_count", "tight") == 0
    assert running.recv(4096).startswith(b"HTTP/1.1 200")
    status, answer = rest.post("/v2/models/tight/infer", body)
    assert status == 200, answer
    running.close()
    rest.close()
