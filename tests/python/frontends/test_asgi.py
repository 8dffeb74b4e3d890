"""HttpCall -> ASGI: each call is answered once, and what an application does wrong stays inside."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import pytest

from fastserve.frontends.asgi import AsgiDriver


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def respond_with(*bodies: bytes, status: int = 200, headers: Any = ()) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    return app


async def test_scope(http_call: Any) -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        seen["request"] = await receive()
        await respond_with(b"")(scope, receive, send)

    call = http_call("POST", "/a%20b/%25?x=1&y=%2F", b"body", [(b"host", b"h")])
    AsgiDriver(app, ("127.0.0.1", 80)).on_call(call)
    await settle()
    assert seen["path"] == "/a b/%"  # decoded once
    assert (seen["raw_path"], seen["query_string"]) == (b"/a%20b/%25", b"x=1&y=%2F")
    assert (seen["method"], seen["headers"], seen["client"]) == ("POST", [(b"host", b"h")], ("127.0.0.1", 5))
    assert seen["request"] == {"type": "http.request", "body": b"body", "more_body": False}


async def test_absolute_form(http_call: Any) -> None:
    paths = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await respond_with(b"")(scope, receive, send)

    driver = AsgiDriver(app)
    for target in ("http://host:1/v2/x", "http://host"):
        driver.on_call(http_call("GET", target))
    await settle()
    assert paths == ["/v2/x", "/"]


async def test_a_body_in_one_piece_is_sent_with_its_length(http_call: Any) -> None:
    call = http_call("GET", "/")
    AsgiDriver(respond_with(b"text", headers=[(b"content-length", b"4"), (b"x", b"y")])).on_call(call)
    await settle()
    assert (call.status, call.response, call.streamed, call.ended) == (200, b"text", False, True)
    assert call.response_headers == {b"x": b"y"}  # the length is the session's own business


async def test_a_body_in_several_pieces_is_streamed(http_call: Any) -> None:
    call = http_call("GET", "/")
    AsgiDriver(respond_with(b"a", b"", b"b")).on_call(call)
    await settle()
    assert (call.response, call.streamed, call.ended) == (b"ab", True, True)


async def test_head_has_no_body(http_call: Any) -> None:
    call = http_call("HEAD", "/")
    AsgiDriver(respond_with(b"text")).on_call(call)
    await settle()
    assert (call.status, call.response) == (200, b"")


async def test_an_exception_is_500_and_only_the_log_says_why(
    http_call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("secret")

    call = http_call("GET", "/x", headers=[(b"x-request-id", b"r-4")])
    with caplog.at_level(logging.ERROR):
        AsgiDriver(app).on_call(call)
        await settle()
    assert call.status == 500
    assert b"secret" not in call.response
    assert "error" in json.loads(call.response)
    assert "secret" in caplog.text
    assert caplog.records[0].request_id == "r-4"  # type: ignore[attr-defined]


async def test_an_exception_in_the_middle_does_not_look_like_a_whole_answer(http_call: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise KeyError

    call = http_call("GET", "/")
    AsgiDriver(app).on_call(call)
    await settle()
    gc.collect()
    assert (call.response, call.ended) == (b"a", False)


@pytest.mark.parametrize("messages", [[], [{"type": "http.response.start", "status": 200, "headers": []}]])
async def test_an_application_that_forgets_to_answer(http_call: Any, messages: list[Any]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    call = http_call("GET", "/")
    AsgiDriver(app).on_call(call)
    await settle()
    assert call.status == 500


async def test_a_second_answer_is_the_applications_error(http_call: Any) -> None:
    errors = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond_with(b"one")(scope, receive, send)
        try:
            await send({"type": "http.response.body", "body": b"two"})
        except RuntimeError as error:
            errors.append(error)

    call = http_call("GET", "/")
    AsgiDriver(app).on_call(call)
    await settle()
    assert call.response == b"one"
    assert len(errors) == 1


async def test_disconnect_reaches_the_application(http_call: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append(await receive())
        with pytest.raises(OSError, match="went away"):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    call = http_call("GET", "/")
    AsgiDriver(app).on_call(call)
    await settle()
    call.cancelled = True
    call.on_cancel()
    await settle()
    assert seen == [{"type": "http.disconnect"}]
    assert call.status is None


async def test_a_client_that_goes_is_no_fault_of_the_application(
    http_call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})  # raises: nobody is there

    call = http_call("GET", "/")
    AsgiDriver(app).on_call(call)
    await settle()
    call.cancelled = True
    call.on_cancel()
    await settle()
    assert caplog.text == ""
    assert call.status is None


async def test_a_target_that_is_not_utf8_is_refused(http_call: Any) -> None:
    call = http_call("GET", "/%ff")
    AsgiDriver(respond_with(b"")).on_call(call)
    assert call.status == 400


async def test_lifespan(http_call: Any) -> None:
    events = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            events.append(scope["state"]["key"])
            await respond_with(b"")(scope, receive, send)
            return
        scope["state"]["key"] = "value"
        for _ in range(2):
            event = (await receive())["type"]
            events.append(event)
            await send({"type": f"{event}.complete"})

    driver = AsgiDriver(app)
    await driver.startup()
    driver.on_call(http_call("GET", "/"))
    await settle()
    await driver.shutdown()
    assert events == ["lifespan.startup", "value", "lifespan.shutdown"]


async def test_lifespan_failure_and_ignorance(http_call: Any) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no disk"})

    async def ignorant(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"

    with pytest.raises(RuntimeError, match="no disk"):
        await AsgiDriver(failing).startup()
    driver = AsgiDriver(ignorant)
    await driver.startup()
    await driver.shutdown()


async def test_shutdown_answers_what_still_runs(http_call: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    driver = AsgiDriver(app)
    call = http_call("GET", "/")
    driver.on_call(call)
    await settle()
    await driver.shutdown()
    assert call.status == 503
