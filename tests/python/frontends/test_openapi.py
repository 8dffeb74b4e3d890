"""The OpenAPI document against the routes, the specification's own validator, and the bodies that the server gives."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from fastserve.frontends.asgi import AsgiDriver
from fastserve.frontends.openapi import documented_methods, openapi_document, operation
from fastserve.frontends.rest_app import rest_app
from fastserve.frontends.served import Served


@pytest.fixture
def document(served: Served) -> Any:
    return openapi_document(rest_app(served).routes, "1.2.3")


def test_the_document_is_valid(document: Any) -> None:
    OpenAPIV31SpecValidator(document).validate()
    json.dumps(document)
    assert document["info"]["version"] == "1.2.3"


def test_routes_and_document_say_the_same(served: Served, document: Any) -> None:
    registered = {
        (method, route.path_format)
        for route in rest_app(served).routes
        if isinstance(route, Route)
        for method in documented_methods(route)
    }
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert described == registered
    assert ("POST", "/v2/models/{model}/versions/{version}/infer") in described


def test_every_operation_is_told_apart_and_explained(document: Any) -> None:
    operations = [about for item in document["paths"].values() for about in item.values()]
    names = [about["operationId"] for about in operations]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"]}
    for about in operations:
        assert about["summary"], about["operationId"]
        assert set(about["tags"]) <= tags


def test_path_parameters_are_described(document: Any) -> None:
    for path, item in document["paths"].items():
        for about in item.values():
            named = {p["name"] for p in about.get("parameters", ()) if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path


def test_inference_has_both_forms_of_a_body(document: Any) -> None:
    infer = document["paths"]["/v2/models/{model}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert {"400", "404", "413", "415", "503"} <= set(infer["responses"])
    headers = {p["name"] for p in infer["parameters"] if p["in"] == "header"}
    assert "Inference-Header-Content-Length" in headers


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/plain"),
        ("GET", "/v2/models/plain/ready"),
        ("GET", "/v2/models/plain/stats"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/models/no"),
    ],
)
async def test_answers_are_what_the_document_says(
    served: Served, http_call: Any, document: Any, method: str, target: str
) -> None:
    call = http_call(method, target)
    AsgiDriver(rest_app(served)).on_call(call)
    async with asyncio.timeout(5):
        while not call.ended:  # noqa: ASYNC110
            await asyncio.sleep(0)
    path = target if target in document["paths"] else re.sub("/(plain|no)", "/{model}", target)
    answered = document["paths"][path][method.lower()]["responses"][str(call.status)]
    schema = answered["content"]["application/json"]["schema"]
    jsonschema.validate(json.loads(call.response), {**schema, "components": document["components"]})


def test_names_that_do_not_exist_are_noticed_when_a_module_is_imported() -> None:
    with pytest.raises(KeyError):
        operation("health", answer="Nothing")
    with pytest.raises(KeyError):
        operation("no tag")


def test_a_route_without_a_description_is_in_the_document() -> None:
    async def plain(request: Any) -> Any: ...

    document = openapi_document([Route("/x/{y}", plain, methods=["GET"])], "1")
    OpenAPIV31SpecValidator(document).validate()
    assert document["paths"]["/x/{y}"]["get"]["tags"] == ["other"]


# --- the page


def page_file(name: str) -> str:
    return resources.files("fastserve.frontends").joinpath("docs", name).read_text("utf-8")


def test_the_page_knows_its_elements() -> None:
    ids = set(re.findall(r'id="(\w+)"', page_file("page.html")))
    assert set(re.findall(r'getElementById\("(\w+)"\)', page_file("page.js"))) <= ids


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_pages_script_runs(tmp_path: Path, document: Any) -> None:
    """Its pure functions, and the whole page over a small DOM: a form for every operation, and the curl it shows."""
    (tmp_path / "page.js").write_text(page_file("page.js"))
    (tmp_path / "document.json").write_text(json.dumps(document))
    (tmp_path / "run.js").write_text(RUN)
    done = subprocess.run(["node", "run.js"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    operations = sum(len(item) for item in document["paths"].values())
    assert found["operations"] == operations
    assert found["quoted"] == "'it'\\''s'"
    assert json.loads(found["example"])["inputs"][0] == {
        "name": "x",
        "datatype": "FP32",
        "shape": [1, 2],
        "data": [0, 0],
    }
    assert found["models"] == ["plain"]
    assert found["curl"] == (
        "curl -s -X POST -H 'Accept-Encoding: gzip' -H 'Content-Type: application/json' -d '{\"a\":1}' "
        "'http://here/v2/models/a%20b/infer'"
    )


# A DOM of the few things that page.js uses.
RUN = """
const fs = require("fs");
class Node {
  constructor(tag) { this.tag = tag; this.children = []; this.attributes = {}; this.value = ""; }
  append(...more) { this.children.push(...more); }
  replaceChildren(...more) { this.children = more; }
  setAttribute(name, value) { this.attributes[name] = value; }
  all(found = []) { for (const c of this.children) if (c instanceof Node) { found.push(c); c.all(found); } return found; }
}
const ids = {};
global.document = {
  createElement: (tag) => new Node(tag),
  getElementById: (id) => (ids[id] ??= new Node("div")),
};
global.location = { origin: "http://here" };
const answers = { "/openapi.json": JSON.parse(fs.readFileSync("document.json")), "/v2/repository/index": [{ name: "plain" }] };
global.fetch = async (url) => ({ ok: true, json: async () => answers[url] });
const page = require("./page.js");
setTimeout(() => {
  const blocks = ids.operations.all().filter((n) => n.tag === "details" && n.id);
  const infer = blocks.find((n) => n.id === "post_v2_models_model_infer").all();
  const inputs = infer.filter((n) => n.tag === "input");
  inputs[0].value = "a b";
  inputs[3].value = "gzip";
  infer.find((n) => n.tag === "textarea").value = '{"a":1}';
  const inside = blocks.find((n) => n.id === "post_v2_models_model_infer").all().find((n) => n.className === "inside");
  inside.oninput();
  const curl = inside.children.filter((n) => n.tag === "pre")[0].textContent;
  console.log(JSON.stringify({
    operations: blocks.length, curl, quoted: page.shellQuoted("it's"), models: ids.models.children.map((n) => n.value),
    example: page.exampleBody({ inputs: [{ name: "x", datatype: "FP32", shape: [-1, 2] }] }),
  }));
}, 50);
"""
